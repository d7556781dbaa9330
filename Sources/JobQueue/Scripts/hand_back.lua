-- Hands a running job back: it is queued again at its old position, and no crash is counted.
-- KEYS  1 record  2 queue  3 channel that announces returned jobs
-- ARGV  1 attempt  2 entry id  3 group  4 consumer that belongs to no worker  5 usage JSON
-- Returns 1 (handed back) or 0 (this attempt no longer owns the job).
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if found[1] ~= 'running' or found[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued', 'usage', ARGV[5])
redis.call('HDEL', KEYS[1], 'worker', 'token')
redis.pcall('XCLAIM', KEYS[2], ARGV[3], ARGV[4], 0, ARGV[2], 'IDLE', 86400000, 'JUSTID')
redis.call('PUBLISH', KEYS[3], ARGV[2])
return 1
