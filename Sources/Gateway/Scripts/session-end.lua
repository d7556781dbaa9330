-- Removes a session that its client has ended, if this gateway still holds it.
-- KEYS  1 session   2 this gateway's sessions with running requests     ARGV  1 gateway   2 epoch   3 session id
-- Returns 1 removed, 0 another gateway holds it or there is none.
redis.call('SREM', KEYS[2], ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
