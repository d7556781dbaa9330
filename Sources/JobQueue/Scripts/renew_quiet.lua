-- Renews leases of jobs in one partition by the lease index alone, when there is nothing else to write for these jobs. A script that gives a job to another worker, returns it to
-- the queue or ends it also changes its lease. So a job still belongs to this worker if its lease is the one that this worker knows.
-- The jobs of one queue get a lease that they share, and that no other job has. So if as many entries have it as the next call expects, none has changed, and one command renews all
-- of them. Entries leave a shared lease when another script sets a lease for them alone.
-- KEYS  1-3 queues (interactive, standard, batch)
-- ARGV  1 group  2 worker  3 lease ms  4 '1': as in renew.lua, also make the worker the owner of the entries  5 maximum shared leases of a queue: more of them are replaced by one,
--       then for each group of jobs of one queue with the same score in the index: number of the queue, that score, number of jobs, number of entry ids, the entry ids. A group has all
--       jobs that this worker knows to share a lease. The ids of such a group are not needed (0) if the lease is only renewed.
-- Returns {scores, doubtful}. scores: the score of each group's entries from now on. doubtful: the numbers of the jobs whose leases were not renewed, or whose entries were deleted;
-- renew.lua finds out about these. Jobs are numbered from 1.
local group, worker, claims_entries, maximum_shared = ARGV[1], ARGV[2], ARGV[4] == '1', tonumber(ARGV[5])
local expiry = digits(now_ms() + ARGV[3])

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

-- Whether a score that Redis has returned, false or nil for none, is the expected one. Some servers write scores with an exponent.
local function is_same(score, expected) return score == expected or tonumber(score) == tonumber(expected) end

-- Adds the entries of a group with leases of their own to `entries`, and the numbers of their jobs to `numbers`, except those whose leases have changed.
local function add_unchanged(index, jobs, entries, numbers)
    local found = redis.pcall('ZMSCORE', index, unpack(jobs.entries))
    for position, entry in ipairs(jobs.entries) do
        local score, number = found[position], jobs.first + position - 1
        if is_same(score, jobs.score) then
            entries[#entries + 1], numbers[#numbers + 1] = entry, number
        else
            doubtful[#doubtful + 1] = number
        end
    end
end

-- Whether as many entries as expected have the shared lease of a group, and its own entries are among them if their ids are given.
local function is_intact(index, jobs)
    if count_with(index, jobs.score) ~= jobs.count then return false end
    for _, score in ipairs(#jobs.entries > 0 and redis.pcall('ZMSCORE', index, unpack(jobs.entries)) or {}) do
        if not is_same(score, jobs.score) then return false end
    end
    return true
end

-- Makes the worker the owner of the entries of jobs, whose numbers are `numbers` or those from `first` on.
local function own_jobs(queue, entries, numbers, first)
    if #entries == 0 then return end
    local reply = own_entries(queue, group, worker, entries)
    if reply.err or #reply == #entries then return end
    local listed = {}
    for _, entry in ipairs(reply) do listed[entry] = true end
    for position, entry in ipairs(entries) do
        if not listed[entry] then doubtful[#doubtful + 1] = numbers and numbers[position] or first + position - 1 end
    end
end

-- Renews the leases of the groups of one queue, and sets their scores. Returns an error if the server executes no writes.
local function renew(queue, groups)
    local index = leases_of(queue)
    local shared, entries, numbers = {}, {}, {}
    for _, jobs in ipairs(groups) do
        if tonumber(jobs.score) < FIRST_SHARED then
            add_unchanged(index, jobs, entries, numbers)
        elseif is_intact(index, jobs) then
            shared[#shared + 1] = jobs
        else
            for number = jobs.first, jobs.first + jobs.count - 1 do doubtful[#doubtful + 1] = number end
        end
    end
    -- The first write must be one that is allowed at the memory limit; after it Redis does not check the limit again in a script.
    local reply = redis.pcall('ZREM', index, '')
    if is_unexecuted(reply) then return reply end
    if claims_entries then
        for _, jobs in ipairs(shared) do own_jobs(queue, jobs.entries, nil, jobs.first) end
        own_jobs(queue, entries, numbers)
    end
    if #shared > maximum_shared then
        for _, jobs in ipairs(shared) do
            redis.call('ZREM', index, shared_lease(jobs.score))
            for _, entry in ipairs(jobs.entries) do entries[#entries + 1] = entry end
        end
        shared = {}
    end
    local command = {'ZADD', index}
    local function set(score, member) command[#command + 1], command[#command + 2] = score, member end
    if #entries > 0 then
        local number = unused_number(index)
        for _, entry in ipairs(entries) do set(number, entry) end
        set(expiry, shared_lease(number))
        for _, jobs in ipairs(groups) do jobs.new_score = number end
    end
    for _, jobs in ipairs(shared) do
        set(expiry, shared_lease(jobs.score))
        jobs.new_score = jobs.score
    end
    if #command > 2 then redis.call(unpack(command)) end
end

local groups, by_queue = {}, {}
local job, at = 1, 6
while ARGV[at] do
    local queue, ids = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 3])
    local jobs = {score = ARGV[at + 1], count = tonumber(ARGV[at + 2]), entries = {unpack(ARGV, at + 4, at + 3 + ids)}, first = job}
    groups[#groups + 1] = jobs
    by_queue[queue] = by_queue[queue] or {}
    table.insert(by_queue[queue], jobs)
    job, at = job + jobs.count, at + 4 + ids
end
for queue, jobs in pairs(by_queue) do
    local problem = renew(queue, jobs)
    if problem then return problem end
end
local scores = {}
for position, jobs in ipairs(groups) do scores[position] = jobs.new_score or jobs.score end
return {scores, doubtful}
