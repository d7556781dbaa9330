-- Renews a worker's leases in one partition, compares the jobs with what Redis holds, records their progress and reads their interrupt keys. What needs no command for each job
-- takes one for all of them, and what has not changed is not sent, because a worker renews all its jobs several times a lease.
-- KEYS  1-3 queues (interactive, standard, batch)  4 channel that announces returned jobs, then for each job, in the order of the queues: record, interrupt key; then for each job
--       with details: log
-- ARGV  1 group  2 worker  3 token of the worker's process  4 consumer that belongs to no worker  5 lease ms  6 '1': also make the worker the owner of the entries, which resets
--       their idle time and finds deleted ones  7-9 number of jobs of each queue, then for each job: attempt, entry id; then for each job with details: its number, '1': read the
--       log, usage JSON, upstream, dialled ms, first token ms ('' if not known or recorded before), id of the newest event that the usage counts
-- Returns {lost, interrupts, logs, time in ms at which the leases expire}. lost: the numbers of the jobs that ended, that another attempt owns or whose record is missing.
-- interrupts: {number, value of the interrupt key, …}. logs: {number, id of the newest event or '', …} for each log read. A record that is missing or shows an older state than
-- this attempt is one that Redis has lost, or lost updates of: the job is queued again, with this attempt's number, so that the next attempt has a number that readers have not
-- seen. A key of the wrong type affects only its own job.
local group, worker, token, unowned_consumer, claims_entries = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[6] == '1'
local expiry = digits(now_ms() + ARGV[5])
local SHARED_KEYS, SHARED_ARGUMENTS, PER_DETAIL = 4, 9, 7
local counts = {tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])}
local count = counts[1] + counts[2] + counts[3]

local is_current, lost, interrupt_keys = {}, {}, {}

-- Whether an entry belongs to this worker.
local function has_entry(queue, entry)
    local pending = redis.pcall('XPENDING', queue, group, entry, entry, 1, worker)
    return not pending.err and #pending > 0
end

-- Reports a job as lost. If Redis has lost updates of it, or its record, it is queued again.
local function report_lost(job, queue, state, recorded, attempt, entry)
    lost[#lost + 1] = job
    local record = KEYS[SHARED_KEYS + 2 * job - 1]
    local unrecorded = not state and has_entry(queue, entry) and listed_job(queue, entry)
    if state == 'running' and recorded <= whole(attempt) or state == 'queued' and recorded < whole(attempt) or unrecorded then
        if unrecorded then restore_record(record, queue, entry, attempt, unrecorded) end
        redis.pcall('XCLAIM', queue, group, unowned_consumer, 0, entry, 'IDLE', UNOWNED_IDLE, 'JUSTID')
        -- Another worker was given the same attempt.
        if state and recorded == whole(attempt) then discard_history((string.gsub(record, '^({[^}]*}:)job:', '%1log:', 1)), attempt) end
        redis.call('HSET', record, 'state', 'queued', 'attempt', attempt)
        redis.call('HDEL', record, 'worker', 'token')
        return_entry(queue, entry, KEYS[4])
    end
end

local job = 0
-- Entries that were deleted. See check_entry.lua.
local unlisted = {}
for class, number in ipairs(counts) do
    local queue, current = KEYS[class], {}
    local first = job + 1
    for _ = 1, number do
        job = job + 1
        local attempt, entry = ARGV[SHARED_ARGUMENTS + 2 * job - 1], ARGV[SHARED_ARGUMENTS + 2 * job]
        interrupt_keys[job] = KEYS[SHARED_KEYS + 2 * job]
        local found = redis.pcall('HMGET', KEYS[SHARED_KEYS + 2 * job - 1], 'state', 'attempt', 'token')
        if found[1] == 'running' and found[2] == attempt and found[3] == token then
            is_current[job] = true
            current[#current + 1] = entry
        else
            if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return found end
            report_lost(job, queue, found.err and 'overwritten' or found[1], whole(found[2] or nil), attempt, entry)
        end
    end
    if #current > 0 then
        -- The first write must be one that is allowed at the memory limit; after it Redis does not check the limit again in a script.
        local reply = claims_entries and own_entries(queue, group, worker, current) or redis.pcall('ZREM', leases_of(queue), '')
        if is_unexecuted(reply) then return reply end
        set_leases(queue, current, expiry)
        if claims_entries and not reply.err and #reply < #current then
            for number = first, job do unlisted[number] = is_current[number] end
            local listed = {}
            for _, entry in ipairs(reply) do listed[entry] = true end
            for number = first, job do
                if listed[ARGV[SHARED_ARGUMENTS + 2 * number]] then unlisted[number] = nil end
            end
        end
    end
end
for number in pairs(unlisted) do redis.call('HSET', KEYS[SHARED_KEYS + 2 * number - 1], 'unlisted_ms', now_ms()) end

local logs = {}
for detail = 1, (#ARGV - SHARED_ARGUMENTS - 2 * count) / PER_DETAIL do
    local at = SHARED_ARGUMENTS + 2 * count + (detail - 1) * PER_DETAIL
    local number, reads_log, usage, upstream, dialled_ms, first_token_ms, counted = unpack(ARGV, at + 1, at + PER_DETAIL)
    number = tonumber(number)
    if is_current[number] then
        local record, fields = KEYS[SHARED_KEYS + 2 * number - 1], {}
        if usage ~= '' then
            fields = {'usage_to', counted}
            add_usage(fields, usage)
        end
        add_present(fields, {upstream = upstream})
        if #fields > 0 then redis.call('HSET', record, unpack(fields)) end
        if dialled_ms ~= '' then redis.call('HSETNX', record, 'dialled_ms', dialled_ms) end
        if first_token_ms ~= '' then redis.call('HSETNX', record, 'first_token_ms', first_token_ms) end
    end
    if reads_log == '1' then
        local last = redis.pcall('XREVRANGE', KEYS[SHARED_KEYS + 2 * count + detail], '+', '-', 'COUNT', 1)
        logs[#logs + 1] = number
        logs[#logs + 1] = last[1] and last[1][1] or ''
    end
end

local interrupts = {}
-- A key of another type counts as missing.
for number, value in ipairs(count > 0 and redis.call('MGET', unpack(interrupt_keys)) or {}) do
    if value then
        interrupts[#interrupts + 1] = number
        interrupts[#interrupts + 1] = value
    end
end
return {lost, interrupts, logs, expiry}
