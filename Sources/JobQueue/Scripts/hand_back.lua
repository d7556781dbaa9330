-- Hands a running job back: it is queued again at its old position, and no crash is counted. A job whose entry was deleted gets a new one, at the end.
-- KEYS  1 record  2 queue  3 channel that announces returned jobs  4 log
-- ARGV  1 attempt  2 entry id  3 group  4 consumer that belongs to no worker  5 usage JSON  6 job JSON  7 class  8 '1': the log lacks output that readers have seen, so that
--       the next attempt must start from the beginning  9 token of the worker's process
-- Returns 1 (handed back), 0 (this attempt of this worker no longer owns the job) or an error (nothing was changed).
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'token')
if found[1] ~= 'running' or found[2] ~= ARGV[1] or found[3] ~= ARGV[9] then return 0 end
local owned = own_entry(KEYS[2], ARGV[3], ARGV[4], ARGV[2], 'IDLE', UNOWNED_IDLE)
if type(owned) == 'table' and owned.err then return owned end
local entry = ARGV[2]
if #redis.call('XRANGE', KEYS[2], entry, entry) == 0 then
    redis.pcall('ZREM', leases_of(KEYS[2]), entry)
    entry = redis.call('XADD', KEYS[2], '*', 'job', ARGV[6])
    redis.call('HSET', KEYS[1], 'entry', ARGV[7] .. ' ' .. entry)
    redis.call('HDEL', KEYS[1], 'unlisted_ms')
    release_bytes(KEYS[2], ARGV[2])
end
if ARGV[8] == '1' then discard_history(KEYS[4], ARGV[1]) end
-- The usage includes the whole log.
local last = redis.pcall('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)
local fields = {'state', 'queued', 'usage_to', last[1] and last[1][1] or '0-0'}
add_usage(fields, ARGV[5])
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HDEL', KEYS[1], 'worker', 'token')
-- A new entry is undelivered: workers that wait for jobs are woken by Redis.
if entry == ARGV[2] then return_entry(KEYS[2], entry, KEYS[3]) end
return 1
