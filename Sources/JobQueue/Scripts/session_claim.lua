-- Claims a session for this gateway and raises its epoch, so that writes of the previous holder are rejected. Only one of several gateways that claim a dead
-- gateway's session succeeds.
-- KEYS  1 session (hash)   2 set of this gateway's sessions with running requests
-- ARGV  1 this gateway   2 '=' followed by the required owner, or '' for any   3 required holder (gateway), or '' for any   4 session id
--       5 prefix of the keys like KEYS[2]; a gateway's name follows it
-- Returns nil when no such session exists, else {previous epoch, field, value, …} with all fields of the session.
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch', 'owner')
if ARGV[3] ~= '' and held[1] ~= ARGV[3] then
    redis.call('SREM', ARGV[5] .. ARGV[3], ARGV[4])
    return nil
end
if not held[2] or (ARGV[2] ~= '' and '=' .. (held[3] or '') ~= ARGV[2]) then return nil end
if held[1] ~= ARGV[1] then
    redis.call('HINCRBY', KEYS[1], 'epoch', 1)
    redis.call('HSET', KEYS[1], 'gateway', ARGV[1])
    if redis.call('SREM', ARGV[5] .. held[1], ARGV[4]) == 1 then
        redis.call('SADD', KEYS[2], ARGV[4])
        redis.call('PEXPIRE', KEYS[2], 86400000)
    end
end
local fields = redis.call('HGETALL', KEYS[1])
table.insert(fields, 1, held[2])
return fields
