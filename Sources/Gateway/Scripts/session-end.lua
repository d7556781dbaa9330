-- Removes a session that its client has ended, if this gateway still holds it.
-- KEYS  1 session   2 this gateway's sessions with running requests   3 the owner's quota (session-quota.lua)
-- ARGV  1 gateway   2 epoch   3 session id
-- Returns 1 removed, 0 another gateway holds it or there is none.
redis.call('SREM', KEYS[2], ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
local now = now_ms()
quota_totals(KEYS[3], now)
local interval, bytes = quota_entry(KEYS[1], now)
if interval then quota_add(KEYS[3], now, interval, -1, -bytes) end
return redis.call('DEL', KEYS[1])
