-- Renews leases of jobs in one partition by the lease index alone, when there is nothing else to write for these jobs. A script that gives a job to another worker, returns it to
-- the queue or ends it also changes its lease. So a job still belongs to this worker if its lease has the expiry that this worker set last.
-- The leases that one call renews get an expiry that no other lease has: only this script writes fractions of a millisecond, and it chooses one that is not in use. So if as many
-- leases have this expiry as the next call names, none has changed, and they need not be compared one by one.
-- KEYS  1-3 queues (interactive, standard, batch)
-- ARGV  1 group  2 worker  3 lease ms  4 '1': as in renew.lua, also make the worker the owner of the entries, then for each group of jobs of one queue whose leases expire at the
--       same time: number of the queue, that time in ms, number of jobs, entry id of each job
-- Returns {new time at which the leases expire, numbers of the jobs whose leases were not renewed}. Jobs are numbered from 1; renew.lua finds out about those in doubt: their
-- leases have another expiry, or their entries were deleted.
local group, worker, claims_entries = ARGV[1], ARGV[2], ARGV[4] == '1'

-- Number of leases with an expiry. An index of the wrong type has none.
local function count_with(index, expiry)
    local found = redis.pcall('ZCOUNT', index, expiry, expiry)
    return type(found) == 'number' and found or 0
end

-- The expiry of a lease that begins now, plus the first fraction that no lease in these indexes has.
local function unused_expiry(indexes)
    -- In steps of 1/8 ms: a double holds such a time exactly, and 16 digits write it exactly.
    local eighths = 8 * (now_ms() + ARGV[3])
    while true do
        eighths = eighths + 1
        if eighths % 8 == 0 then eighths = eighths + 1 end
        local expiry, is_used = string.format('%.16g', eighths / 8), false
        for index in pairs(indexes) do is_used = is_used or count_with(index, expiry) > 0 end
        if not is_used then return expiry end
    end
end

-- Numbers of the jobs that are not renewed.
local doubtful = {}

-- The entries of a group whose leases are unchanged, and the numbers of their jobs; nil for the numbers `first`, `first + 1` and so on.
local function unchanged(index, expected, entries, first)
    if string.find(expected, '.', 1, true) and count_with(index, expected) == #entries then return entries end
    local found, current, numbers = redis.pcall('ZMSCORE', index, unpack(entries)), {}, {}
    for position, entry in ipairs(entries) do
        -- Some servers write scores with an exponent.
        local score = found[position]
        if score and (score == expected or tonumber(score) == tonumber(expected)) then
            current[#current + 1], numbers[#numbers + 1] = entry, first + position - 1
        else
            doubtful[#doubtful + 1] = first + position - 1
        end
    end
    return current, numbers
end

local groups, indexes = {}, {}
local job, at = 1, 5
while ARGV[at] do
    local queue, count = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 2])
    local index = leases_of(queue)
    groups[#groups + 1] = {queue = queue, index = index, expected = ARGV[at + 1], entries = {unpack(ARGV, at + 3, at + 2 + count)}, first = job}
    indexes[index] = true
    job, at = job + count, at + 3 + count
end

local expiry = unused_expiry(indexes)
for _, jobs in ipairs(groups) do
    local queue, index, first = jobs.queue, jobs.index, jobs.first
    local current, numbers = unchanged(index, jobs.expected, jobs.entries, first)
    local length = #current
    if length > 0 then
        -- The first write must be one that is allowed at the memory limit; after it Redis does not check the limit again in a script.
        local reply = claims_entries and own_entries(queue, group, worker, current) or redis.pcall('ZREM', index, '')
        if is_unexecuted(reply) then return reply end
        if claims_entries and not reply.err and #reply < length then
            local listed = {}
            for _, entry in ipairs(reply) do listed[entry] = true end
            for position, entry in ipairs(current) do
                if not listed[entry] then doubtful[#doubtful + 1] = numbers and numbers[position] or first + position - 1 end
            end
        end
        local command = {'ZADD', index}
        for position = 1, length do command[2 * position + 1], command[2 * position + 2] = expiry, current[position] end
        redis.call(unpack(command))
    end
end
return {expiry, doubtful}
