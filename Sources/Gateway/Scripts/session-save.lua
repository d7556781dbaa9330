-- Writes a session's fields, if this gateway still holds it.
-- KEYS  1 session   2 this gateway's sessions with running requests
-- ARGV  1 gateway   2 epoch   3 expiry (ms since 1970)   4 has running requests 0|1   5 may create it 0|1   6 session id
--       7 how many fields to delete, then those, then field, value, …
-- Returns 1 written, 0 another gateway holds it, -1 there is no such session.
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch')
if not held[2] then
    if ARGV[5] ~= '1' then return -1 end
    redis.call('HSET', KEYS[1], 'gateway', ARGV[1], 'epoch', ARGV[2])
elseif held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
    return 0
end
local count = tonumber(ARGV[7])
for i = 8, 7 + count do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = 8 + count, #ARGV - 1, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
if ARGV[4] == '1' then
    redis.call('SADD', KEYS[2], ARGV[6])
    redis.call('PEXPIRE', KEYS[2], 86400000)
else
    redis.call('SREM', KEYS[2], ARGV[6])
end
return 1
