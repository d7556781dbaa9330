-- Takes a session for this gateway, so that every other one's writes are refused from now on. Exactly one claimer of a dead gateway's session gets it.
-- KEYS  1 session   2 this gateway's sessions with running requests
-- ARGV  1 gateway   2 '=' and the owner it must have, or '' for any   3 the gateway that must hold it, or '' for any   4 session id
--       5 what a key of sessions with running requests begins with (the holder's name follows)
-- Returns nil (none such), else the epoch that it had and all its fields: {epoch, field, value, …}.
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
