-- Keeps a worker's leases, notes how far its jobs are, and reads their durable interrupts.
-- KEYS  for each job: record, durable key, queue
-- ARGV  1 group  2 worker, then for each job: attempt, entry id, usage JSON, upstream, dialled ms, first token ms ('' for what is not known)
-- Returns for each job 1 (kept), 0 (lost: it ended, another attempt has it or its record is gone), or the durable key's value.
-- A key that holds another type than it should concerns only its own job.
local answers = {}
for job = 1, #KEYS / 3 do
    local record, intent, queue = KEYS[job * 3 - 2], KEYS[job * 3 - 1], KEYS[job * 3]
    local at = 3 + (job - 1) * 6
    local found = redis.pcall('HMGET', record, 'state', 'attempt')
    if found[1] == 'running' and found[2] == ARGV[at] then
        -- First: it needs no memory, and behind it Redis lets a script write on even when it has none.
        redis.pcall('XCLAIM', queue, ARGV[1], ARGV[2], 0, ARGV[at + 1], 'JUSTID')
        if ARGV[at + 2] ~= '' then redis.call('HSET', record, 'usage', ARGV[at + 2]) end
        if ARGV[at + 3] ~= '' then redis.call('HSET', record, 'upstream', ARGV[at + 3]) end
        if ARGV[at + 4] ~= '' then redis.call('HSETNX', record, 'dialled_ms', ARGV[at + 4]) end
        if ARGV[at + 5] ~= '' then redis.call('HSETNX', record, 'first_token_ms', ARGV[at + 5]) end
        local wish = redis.pcall('GET', intent)
        answers[job] = type(wish) == 'string' and wish or 1
    else
        answers[job] = 0
    end
end
return answers
