-- Queues a running job again, because its readers have seen another history of this attempt, which Redis has lost. No crash is counted.
-- KEYS  1 record  2 log  3 channel that announces returned jobs  4-6 queues (interactive, standard, batch)
-- ARGV  1 attempt  2 group  3 consumer that belongs to no worker
-- Returns 1 (queued again) or 0 (this attempt does not run). Output of the attempt is refused from then on.
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'entry')
if found[1] ~= 'running' or found[2] ~= ARGV[1] then return 0 end
local queues = {interactive = KEYS[4], standard = KEYS[5], batch = KEYS[6]}
local class, entry = string.match(found[3] or '', '^(%S+) (%S+)$')
local queue = class and queues[class]
if not queue then return 0 end
local owned = own_entry(queue, ARGV[2], ARGV[3], entry, 'IDLE', UNOWNED_IDLE)
if type(owned) == 'table' and owned.err then return owned end
discard_history(KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('HDEL', KEYS[1], 'worker', 'token')
return_entry(queue, entry, KEYS[3])
return 1
