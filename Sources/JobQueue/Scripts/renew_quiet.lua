-- Renews leases of jobs in one partition by the lease index alone, when there is nothing else to write for these jobs. A script that gives a job to another worker, returns it to
-- the queue or ends it also changes its lease. So a job still belongs to this worker if its lease has the expiry that this worker set last.
-- KEYS  1-3 queues (interactive, standard, batch)
-- ARGV  1 group  2 worker  3 lease ms  4 '1': as in renew.lua, also make the worker the owner of the entries, then for each group of jobs of one queue whose leases expire at the
--       same time: number of the queue, that time in ms, number of jobs, entry id of each job
-- Returns {new time at which the leases expire, numbers of the jobs whose leases were not renewed}. Jobs are numbered from 1; renew.lua finds out about those in doubt: their
-- leases have another expiry, or their entries were deleted.
local group, worker, claims_entries = ARGV[1], ARGV[2], ARGV[4] == '1'
local expiry = digits(now_ms() + ARGV[3])
local doubtful = {}

local job, at = 0, 5
while ARGV[at] do
    local queue, expected, count = KEYS[tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2])
    at = at + 3
    local index = leases_of(queue)
    local found = redis.pcall('ZMSCORE', index, unpack(ARGV, at, at + count - 1))
    local command, current, numbers, length = {'ZADD', index}, {}, {}, 0
    for number = 1, count do
        -- Some servers write scores with an exponent.
        local score = found[number]
        if score and (score == expected or tonumber(score) == tonumber(expected)) then
            local entry = ARGV[at + number - 1]
            length = length + 1
            current[length], numbers[length] = entry, job + number
            command[2 * length + 1], command[2 * length + 2] = expiry, entry
        else
            doubtful[#doubtful + 1] = job + number
        end
    end
    if length > 0 then
        -- The first write must be one that is allowed at the memory limit; after it Redis does not check the limit again in a script.
        local reply = claims_entries and own_entries(queue, group, worker, current) or redis.pcall('ZREM', index, '')
        if is_unexecuted(reply) then return reply end
        if claims_entries and not reply.err and #reply < length then
            local listed = {}
            for _, entry in ipairs(reply) do listed[entry] = true end
            for position, entry in ipairs(current) do
                if not listed[entry] then doubtful[#doubtful + 1] = numbers[position] end
            end
        end
        redis.call(unpack(command))
    end
    job, at = job + count, at + count
end
return {expiry, doubtful}
