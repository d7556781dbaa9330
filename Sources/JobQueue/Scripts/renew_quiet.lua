-- Renews leases of jobs in one partition by the lease index alone, when there is nothing else to write for these jobs. A script that gives a job to another worker, returns it to
-- the queue or ends it also changes its lease. So a job still belongs to this worker if its lease is the one that this worker knows.
-- The jobs of one queue get a lease that they share, and that no other job has. So if as many entries have it as the next call names, none has changed, and two commands renew all
-- of them. Entries leave a shared lease when another script sets a lease for them alone.
-- KEYS  1-3 queues (interactive, standard, batch)
-- ARGV  1 group  2 worker  3 lease ms  4 '1': as in renew.lua, also make the worker the owner of the entries, then for each group of jobs of one queue with the same score in the
--       index: number of the queue, that score, number of jobs, entry id of each job. A group has all entries that this worker knows to share a lease.
-- Returns {scores, doubtful}. scores: the score of each group's entries from now on. doubtful: the numbers of the jobs whose leases were not renewed, or whose entries were deleted;
-- renew.lua finds out about these. Jobs are numbered from 1.
local group, worker, claims_entries = ARGV[1], ARGV[2], ARGV[4] == '1'
local expiry = digits(now_ms() + ARGV[3])
-- Shared leases of a queue that one call renews; more of them are replaced by one.
local MAXIMUM_SHARED = 2

-- Number of entries with a score. An index of the wrong type has none.
local function count_with(index, score)
    local found = redis.pcall('ZCOUNT', index, score, score)
    return type(found) == 'number' and found or 0
end

-- A number for a new shared lease: by the time, so that it was not used lately either.
local function unused_number(index)
    local number = FIRST_SHARED + now_ms()
    while count_with(index, number) > 0 or redis.call('ZSCORE', index, shared_lease(number)) do number = number + 1 end
    return digits(number)
end

local doubtful = {}

-- Sets the current entries of a group, those that have the expected score, and the numbers of their jobs.
local function compare(index, jobs)
    jobs.current, jobs.numbers = {}, {}
    local found = redis.pcall('ZMSCORE', index, unpack(jobs.entries))
    for position, entry in ipairs(jobs.entries) do
        local score, number = found[position], jobs.first + position - 1
        -- Some servers write scores with an exponent.
        if score and (score == jobs.score or tonumber(score) == tonumber(jobs.score)) then
            jobs.current[#jobs.current + 1], jobs.numbers[#jobs.numbers + 1] = entry, number
        else
            doubtful[#doubtful + 1] = number
        end
    end
end

-- Makes the worker the owner of the current entries of a group. Returns an error if the server executes no writes.
local function own_current(queue, jobs)
    -- The first write must be one that is allowed at the memory limit; after it Redis does not check the limit again in a script.
    local reply = claims_entries and own_entries(queue, group, worker, jobs.current) or redis.pcall('ZREM', leases_of(queue), '')
    if is_unexecuted(reply) then return reply end
    if not claims_entries or reply.err or #reply == #jobs.current then return nil end
    local listed = {}
    for _, entry in ipairs(reply) do listed[entry] = true end
    for position, entry in ipairs(jobs.current) do
        if not listed[entry] then doubtful[#doubtful + 1] = jobs.numbers and jobs.numbers[position] or jobs.first + position - 1 end
    end
end

-- Renews the leases of the groups of one queue, and sets their scores.
local function renew(queue, groups)
    local index = leases_of(queue)
    local intact, others = {}, {}
    for _, jobs in ipairs(groups) do
        if tonumber(jobs.score) >= FIRST_SHARED and count_with(index, jobs.score) == #jobs.entries then
            jobs.current = jobs.entries
            intact[#intact + 1] = jobs
        else
            compare(index, jobs)
            others[#others + 1] = jobs
        end
        local problem = #jobs.current > 0 and own_current(queue, jobs)
        if problem then return problem end
    end
    if #intact > MAXIMUM_SHARED then
        for _, jobs in ipairs(intact) do
            redis.call('ZREM', index, shared_lease(jobs.score))
            others[#others + 1] = jobs
        end
        intact = {}
    end
    local command = {'ZADD', index}
    local function set(score, member) command[#command + 1], command[#command + 2] = score, member end
    for _, jobs in ipairs(intact) do set(expiry, shared_lease(jobs.score)) end
    local number
    for _, jobs in ipairs(others) do
        if #jobs.current > 0 then
            number = number or unused_number(index)
            for _, entry in ipairs(jobs.current) do set(number, entry) end
            jobs.score = number
        end
    end
    if number then set(expiry, shared_lease(number)) end
    if #command > 2 then redis.call(unpack(command)) end
end

local groups, by_queue = {}, {}
local job, at = 1, 5
while ARGV[at] do
    local queue, count = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 2])
    local jobs = {score = ARGV[at + 1], entries = {unpack(ARGV, at + 3, at + 2 + count)}, first = job}
    groups[#groups + 1] = jobs
    by_queue[queue] = by_queue[queue] or {}
    table.insert(by_queue[queue], jobs)
    job, at = job + count, at + 3 + count
end
for queue, jobs in pairs(by_queue) do
    local problem = renew(queue, jobs)
    if problem then return problem end
end
local scores = {}
for position, jobs in ipairs(groups) do scores[position] = jobs.score end
return {scores, doubtful}
