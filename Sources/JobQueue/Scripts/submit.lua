-- Puts a job into its queue, unless the queue is full or the idempotency key was used; interrupts the jobs that it supersedes.
-- KEYS  1 record  2-4 queues (interactive, standard, batch)  5 cancel channel  6 idempotency key (or the record again: none)
--       then for each superseded job: record, log, out channel, durable key
-- ARGV  1 job JSON  2 class  3 waiting maximum  4 gateway  5 owner  6 session  7 model  8 retry_of  9 digest of the body ('' without a key)
--       10 group  11 retention s  12 id  13 reason of superseding, then for each superseded job: the durable key's value
-- Returns {'accepted'}, {'full', waiting}, {'repeated', id}, {'conflict'} or {'exists'} (the id has a record: the same submission came twice).
local queues = {interactive = KEYS[2], standard = KEYS[3], batch = KEYS[4]}
local queue = queues[ARGV[2]]
if ARGV[9] ~= '' then
    local used = redis.call('GET', KEYS[6])
    if used then
        local id, digest = string.match(used, '^(%S+) (%S+)$')
        if digest == ARGV[9] then return {'repeated', id} end
        return {'conflict'}
    end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
local waiting = redis.call('XLEN', queue)
if waiting >= tonumber(ARGV[3]) then
    -- What is being worked on is in the stream too: it does not wait.
    local ok, pending = pcall(redis.call, 'XPENDING', queue, ARGV[10])
    if ok and type(pending) == 'table' and tonumber(pending[1]) then waiting = waiting - tonumber(pending[1]) end
    if waiting >= tonumber(ARGV[3]) then return {'full', waiting} end
end
for i = 7, #KEYS, 4 do
    interrupt(KEYS[i], KEYS[i + 1], KEYS[i + 2], KEYS[i + 3], KEYS[5], queues, ARGV[14 + (i - 7) / 4], ARGV[13], ARGV[5], ARGV[10], ARGV[11])
end
local entry = redis.call('XADD', queue, '*', 'job', ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'attempt', 0, 'crashes', 0, 'class', ARGV[2], 'submitted_ms', now_ms(), 'entry', ARGV[2] .. ' ' .. entry)
local optional = {gateway = ARGV[4], owner = ARGV[5], session = ARGV[6], model = ARGV[7], retry_of = ARGV[8]}
for name, value in pairs(optional) do
    if value ~= '' then redis.call('HSET', KEYS[1], name, value) end
end
if ARGV[9] ~= '' then redis.call('SET', KEYS[6], ARGV[12] .. ' ' .. ARGV[9], 'EX', 86400) end
return {'accepted'}
