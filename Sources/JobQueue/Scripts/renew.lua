-- Renews a worker's leases, compares the jobs with what Redis holds, records their progress and reads their interrupt keys.
-- KEYS  for each job: record, log, interrupt key, queue, channel that announces returned jobs
-- ARGV  1 group  2 worker  3 token of the worker's process  4 consumer that belongs to no worker  5 lease ms, then for each job: attempt, entry id, usage JSON, upstream,
--       dialled ms, first token ms ('' if not known), id of the newest event that the usage counts
-- Returns for each job {1 (renewed) or 0 (lost: it ended, another attempt owns it or its record is missing), id of the newest event or '', value of the interrupt key or
-- null}. A record that shows an older state than this attempt is one that Redis has lost updates of: the job is queued again, with this attempt's number, so that the next
-- attempt has a number that readers have not seen. A key of the wrong type affects only its own job.
local PER_JOB = 7
local group, worker, token, unowned_consumer = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local expiry = string.format('%.0f', now_ms() + ARGV[5])
local answers = {}
for job = 1, #KEYS / 5 do
    local record, log, interrupt_key, queue, returned = unpack(KEYS, job * 5 - 4, job * 5)
    local attempt, entry, usage, upstream, dialled_ms, first_token_ms, counted = unpack(ARGV, 6 + (job - 1) * PER_JOB, 5 + job * PER_JOB)
    local found = redis.pcall('HMGET', record, 'state', 'attempt', 'token')
    if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return found end
    local state, recorded = found[1], whole(found[2] or nil)
    local is_current = state == 'running' and found[2] == attempt and found[3] == token
    local is_outdated = not is_current and (state == 'running' and recorded <= whole(attempt) or state == 'queued' and recorded < whole(attempt))
    if is_current then
        -- XCLAIM comes first: it is allowed at the memory limit, and after a script's first write Redis does not check the limit again.
        local claimed = own_entry(queue, group, worker, entry)
        if is_unexecuted(claimed) then return claimed end
        set_lease(queue, entry, expiry)
        -- The entry was deleted. See check_entry.lua.
        if not claimed.err and #claimed == 0 then redis.call('HSET', record, 'unlisted_ms', now_ms()) end
        if usage ~= '' then
            local fields = {'usage_to', counted}
            add_usage(fields, usage)
            redis.call('HSET', record, unpack(fields))
        end
        if upstream ~= '' then redis.call('HSET', record, 'upstream', upstream) end
        if dialled_ms ~= '' then redis.call('HSETNX', record, 'dialled_ms', dialled_ms) end
        if first_token_ms ~= '' then redis.call('HSETNX', record, 'first_token_ms', first_token_ms) end
    elseif is_outdated then
        redis.pcall('XCLAIM', queue, group, unowned_consumer, 0, entry, 'IDLE', UNOWNED_IDLE, 'JUSTID')
        -- Another worker was given the same attempt.
        if recorded == whole(attempt) then discard_history(log, attempt) end
        redis.call('HSET', record, 'state', 'queued', 'attempt', attempt)
        redis.call('HDEL', record, 'worker', 'token')
        return_entry(queue, entry, returned)
    end
    local last = redis.pcall('XREVRANGE', log, '+', '-', 'COUNT', 1)
    local interrupt_value = redis.pcall('GET', interrupt_key)
    answers[job] = {is_current and 1 or 0, last[1] and last[1][1] or '', type(interrupt_value) == 'string' and interrupt_value}
end
return answers
