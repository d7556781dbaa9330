-- Hands a running job back: it is queued again at its old position, and no crash is counted. A job whose entry was deleted gets a new one, at the end.
-- KEYS  1 record  2 queue  3 channel that announces returned jobs
-- ARGV  1 attempt  2 entry id  3 group  4 consumer that belongs to no worker  5 usage JSON  6 job JSON  7 class
-- Returns 1 (handed back), 0 (this attempt no longer owns the job) or an error (nothing was changed).
local found = redis.call('HMGET', KEYS[1], 'state', 'attempt')
if found[1] ~= 'running' or found[2] ~= ARGV[1] then return 0 end
local owned = own_entry(KEYS[2], ARGV[3], ARGV[4], ARGV[2], 'IDLE', 86400000)
if type(owned) == 'table' and owned.err then return owned end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
    local entry = redis.call('XADD', KEYS[2], '*', 'job', ARGV[6])
    redis.call('HSET', KEYS[1], 'entry', ARGV[7] .. ' ' .. entry)
end
redis.call('HSET', KEYS[1], 'state', 'queued', 'usage', ARGV[5])
redis.call('HDEL', KEYS[1], 'worker', 'token')
redis.call('PUBLISH', KEYS[3], ARGV[2])
return 1
