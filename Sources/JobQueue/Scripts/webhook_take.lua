-- Takes webhooks whose delivery is due. They are due again after the lease, in case the worker dies. shared.lua and ending.lua are prepended.
-- KEYS  1 webhooks (sorted set: job ids by the time of the next delivery, ms)  2 number of webhooks that were dropped because too many waited
-- ARGV  1 lease ms  2 maximum number
-- Returns the number of webhooks dropped since the last call, then for each one taken: job id, type, owner, time of the event (s), number of this attempt.
own(KEYS[1], 'zset')
local now = tonumber(now_ms())
own(KEYS[2], 'string')
local taken = {tostring(whole(redis.call('GET', KEYS[2]) or '0'))}
redis.call('DEL', KEYS[2])
for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local key = webhook_of(KEYS[1], job)
    own(key, 'hash')
    local fields = redis.call('HMGET', key, 'type', 'owner', 'created')
    if fields[1] then
        redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), job)
        for _, value in ipairs({job, fields[1], fields[2] or '', fields[3] or '0', tostring(redis.call('HINCRBY', key, 'attempts', 1))}) do
            taken[#taken + 1] = value
        end
    else
        redis.call('ZREM', KEYS[1], job)
    end
end
return taken
