-- Ends a job as failed whose queue entry is gone, because its queue was deleted or trimmed: no worker would ever claim it again.
-- KEYS  1 record  2 log  3 output channel  4 interrupt key  5-7 queues (interactive, standard, batch)
-- ARGV  1 lease ms  2 retention s  3 the record's field `entry` when it was read before ('': not read), for a record that was deleted or overwritten
--       4 newest attempt that the caller knows of (0: none), likewise
-- Returns 1 (this call ended the job) or 0. A running job ends after a lease without a renewal: until then its worker may complete it without the entry.
local found = redis.pcall('HMGET', KEYS[1], 'state', 'entry', 'owner', 'unlisted_ms')
if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return 0 end
if found[1] and found[1] ~= 'queued' and found[1] ~= 'running' then return 0 end
local queues = {interactive = KEYS[5], standard = KEYS[6], batch = KEYS[7]}
local class, entry = string.match(found[2] or ARGV[3], '^(%S+) (%S+)$')
local queue = class and queues[class]
if not queue then return 0 end
local listed = redis.pcall('XRANGE', queue, entry, entry)
if listed.err and not string.find(listed.err, 'WRONGTYPE', 1, true) then return 0 end
if not listed.err and #listed > 0 then return 0 end
if found[1] == 'running' then
    local unlisted = tonumber(found[4] or '')
    if not unlisted then
        redis.call('HSET', KEYS[1], 'unlisted_ms', now_ms())
        return 0
    end
    if tonumber(now_ms()) - unlisted <= tonumber(ARGV[1]) then return 0 end
end
if found.err then own(KEYS[1], 'hash') end
-- The end needs an id above those that readers have, also if the log is gone.
if not found[1] and tonumber(ARGV[4]) > 0 then
    -- The first write: one that Redis accepts at the memory limit.
    redis.call('HDEL', KEYS[1], 'token')
    redis.call('HSET', KEYS[1], 'attempt', ARGV[4])
end
conclude_failed(KEYS[1], KEYS[2], KEYS[3], KEYS[4], 'internal', 'the queue entry of the job was deleted in Redis; send the job again', true, ARGV[2])
waits_no_more(KEYS[1], found[3], queue)
unsort(queue, found[3], entry)
redis.pcall('ZREM', leases_of(queue), entry)
release_bytes(queue, entry)
return 1
