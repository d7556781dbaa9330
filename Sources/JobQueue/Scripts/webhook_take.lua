-- Takes webhooks whose delivery is due. They are due again after the lease, in case the worker dies.
-- KEYS  1 webhooks (sorted set: job ids by the time of the next delivery, ms)
-- ARGV  1 lease ms  2 maximum number  3 maximum of one owner, those it has included  4 due webhooks to pass over
--       5 and more: owners and how many each has
-- Returns how many due webhooks to pass over next time; then for each one: job id, type, owner, time of the event (s), number of this attempt.
local SCAN = 500
own(KEYS[1], 'zset')
local now = tonumber(now_ms())
local maximum, share, skip = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local has = {}
for index = 5, #ARGV - 1, 2 do has[ARGV[index]] = tonumber(ARGV[index + 1]) end
local jobs = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', skip, SCAN)
local taken, count, passed = {0}, 0, 0
for _, job in ipairs(jobs) do
    if count == maximum then return taken end
    local key = webhook_of(KEYS[1], job)
    own(key, 'hash')
    local fields = redis.call('HMGET', key, 'type', 'owner', 'created')
    local owner = fields[2] or ''
    if not fields[1] then
        redis.call('ZREM', KEYS[1], job)
    elseif (has[owner] or 0) >= share then
        passed = passed + 1
    else
        count = count + 1
        has[owner] = (has[owner] or 0) + 1
        redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), job)
        for _, value in ipairs({job, fields[1], owner, fields[3] or '0', tostring(redis.call('HINCRBY', key, 'attempts', 1))}) do
            taken[#taken + 1] = value
        end
    end
end
-- Behind a long backlog of owners that have their share there may be webhooks of others.
if #jobs == SCAN then taken[1] = skip + passed end
return taken
