-- Records the result of a webhook's delivery. No effect when another worker has taken it since.
-- KEYS  1 webhooks  2 failing webhooks (sorted set)  3 dead webhooks (stream)  4 last error (string)
-- ARGV  1 job id  2 number of the attempt  3 'done', 'retry' or 'dead'  4 delay of the next attempt, ms  5 error  6 dead webhooks kept
-- Returns 1 recorded, 0 not.
local key = webhook_of(KEYS[1], ARGV[1])
if redis.call('HGET', key, 'attempts') ~= ARGV[2] then return 0 end
local now = tonumber(now_ms())
own(KEYS[2], 'zset')
if ARGV[3] ~= 'done' then redis.call('SET', KEYS[4], string.format('%.0f ', now) .. ARGV[5], 'EX', WEBHOOK_KEPT) end
if ARGV[3] == 'retry' then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[1])
    redis.call('ZADD', KEYS[2], now, ARGV[1])
    redis.call('EXPIRE', KEYS[2], WEBHOOK_KEPT)
    return 1
end
if ARGV[3] == 'dead' then
    local fields = redis.call('HMGET', key, 'type', 'owner', 'created')
    own(KEYS[3], 'stream')
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'job', ARGV[1], 'type', fields[1] or '', 'owner', fields[2] or '', 'created',
        fields[3] or '', 'attempts', ARGV[2], 'error', ARGV[5])
    redis.call('EXPIRE', KEYS[3], 7 * 86400)
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', key)
return 1
