-- Renews a worker's leases, records the progress of its jobs and reads their interrupt keys.
-- KEYS  for each job: record, interrupt key, queue
-- ARGV  1 group  2 worker, then for each job: attempt, entry id, usage JSON, upstream, dialled ms, first token ms ('' if not known)
-- Returns for each job 1 (renewed), 0 (lost: it ended, another attempt owns it or its record is missing), or the value of the interrupt key.
-- A key of the wrong type affects only its own job.
local answers = {}
for job = 1, #KEYS / 3 do
    local record, interrupt_key, queue = KEYS[job * 3 - 2], KEYS[job * 3 - 1], KEYS[job * 3]
    local at = 3 + (job - 1) * 6
    local found = redis.pcall('HMGET', record, 'state', 'attempt')
    if found[1] == 'running' and found[2] == ARGV[at] then
        -- XCLAIM comes first: it is allowed at the memory limit, and after a script's first write Redis does not check the limit again.
        redis.pcall('XCLAIM', queue, ARGV[1], ARGV[2], 0, ARGV[at + 1], 'JUSTID')
        if ARGV[at + 2] ~= '' then redis.call('HSET', record, 'usage', ARGV[at + 2]) end
        if ARGV[at + 3] ~= '' then redis.call('HSET', record, 'upstream', ARGV[at + 3]) end
        if ARGV[at + 4] ~= '' then redis.call('HSETNX', record, 'dialled_ms', ARGV[at + 4]) end
        if ARGV[at + 5] ~= '' then redis.call('HSETNX', record, 'first_token_ms', ARGV[at + 5]) end
        local interrupt_value = redis.pcall('GET', interrupt_key)
        answers[job] = type(interrupt_value) == 'string' and interrupt_value or 1
    else
        answers[job] = 0
    end
end
return answers
