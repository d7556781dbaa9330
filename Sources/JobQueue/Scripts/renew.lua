-- Renews a worker's leases in one partition, compares the jobs with what Redis holds, records their progress and reads their interrupt keys. What needs no command for each job
-- takes one for all of them, because a worker renews all its jobs several times a lease.
-- KEYS  1-3 queues (interactive, standard, batch)  4 channel that announces returned jobs, then for each job: record, log, interrupt key
-- ARGV  1 group  2 worker  3 token of the worker's process  4 consumer that belongs to no worker  5 lease ms, then for each job: number of its queue, attempt, entry id, '1': read
--       the log, usage JSON, upstream, dialled ms, first token ms ('' if not known or recorded before), id of the newest event that the usage counts
-- Returns for each job {1 (renewed) or 0 (lost: it ended, another attempt owns it or its record is missing), id of the newest event or '', value of the interrupt key or
-- null}. A record that shows an older state than this attempt is one that Redis has lost updates of: the job is queued again, with this attempt's number, so that the next
-- attempt has a number that readers have not seen. A key of the wrong type affects only its own job.
local SHARED_KEYS, PER_JOB = 4, 9
local group, worker, token, unowned_consumer = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local expiry = digits(now_ms() + ARGV[5])
local count = (#KEYS - SHARED_KEYS) / 3
local function keys_of(job) return unpack(KEYS, SHARED_KEYS + job * 3 - 2, SHARED_KEYS + job * 3) end
local function arguments_of(job) return unpack(ARGV, 6 + (job - 1) * PER_JOB, 5 + job * PER_JOB) end

local current, interrupt_keys = {}, {}
-- The entries of current jobs, by queue.
local entries = {{}, {}, {}}
for job = 1, count do
    local record, log, interrupt_key = keys_of(job)
    local class, attempt, entry = arguments_of(job)
    local queue = KEYS[tonumber(class)]
    interrupt_keys[job] = interrupt_key
    local found = redis.pcall('HMGET', record, 'state', 'attempt', 'token')
    if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return found end
    local state, recorded = found[1], whole(found[2] or nil)
    if state == 'running' and found[2] == attempt and found[3] == token then
        current[job] = true
        local list = entries[tonumber(class)]
        list[#list + 1] = entry
    elseif state == 'running' and recorded <= whole(attempt) or state == 'queued' and recorded < whole(attempt) then
        redis.pcall('XCLAIM', queue, group, unowned_consumer, 0, entry, 'IDLE', UNOWNED_IDLE, 'JUSTID')
        -- Another worker was given the same attempt.
        if recorded == whole(attempt) then discard_history(log, attempt) end
        redis.call('HSET', record, 'state', 'queued', 'attempt', attempt)
        redis.call('HDEL', record, 'worker', 'token')
        return_entry(queue, entry, KEYS[4])
    end
end

-- Entries that were deleted. See check_entry.lua.
local unlisted = {}
for class, list in ipairs(entries) do
    if #list > 0 then
        -- XCLAIM comes first: it is allowed at the memory limit, and after a script's first write Redis does not check the limit again.
        local claimed = own_entries(KEYS[class], group, worker, list)
        if is_unexecuted(claimed) then return claimed end
        set_leases(KEYS[class], list, expiry)
        if not claimed.err and #claimed < #list then
            for _, entry in ipairs(list) do unlisted[class .. entry] = true end
            for _, entry in ipairs(claimed) do unlisted[class .. entry] = nil end
        end
    end
end

-- A key of another type counts as missing.
local interrupts = count > 0 and redis.call('MGET', unpack(interrupt_keys)) or {}
local answers = {}
for job = 1, count do
    local record, log = keys_of(job)
    local class, attempt, entry, reads_log, usage, upstream, dialled_ms, first_token_ms, counted = arguments_of(job)
    if current[job] then
        local fields = {}
        if unlisted[class .. entry] then fields = {'unlisted_ms', now_ms()} end
        if usage ~= '' then
            fields[#fields + 1] = 'usage_to'
            fields[#fields + 1] = counted
            add_usage(fields, usage)
        end
        if upstream ~= '' then
            fields[#fields + 1] = 'upstream'
            fields[#fields + 1] = upstream
        end
        if #fields > 0 then redis.call('HSET', record, unpack(fields)) end
        if dialled_ms ~= '' then redis.call('HSETNX', record, 'dialled_ms', dialled_ms) end
        if first_token_ms ~= '' then redis.call('HSETNX', record, 'first_token_ms', first_token_ms) end
    end
    local last = reads_log == '1' and redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1) or {}
    answers[job] = {current[job] and 1 or 0, last[1] and last[1][1] or '', interrupts[job]}
end
return answers
