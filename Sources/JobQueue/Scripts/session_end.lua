-- Deletes a session that its client has ended, if this gateway still holds it.
-- KEYS  1 session (hash)   2 set of this gateway's sessions with running requests   3 the owner's quota (hash)
-- ARGV  1 this gateway   2 epoch   3 session id
-- Returns 1 when deleted, 0 when another gateway holds the session or it does not exist.
redis.call('SREM', KEYS[2], ARGV[3])
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch', 'quota')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
local now = tonumber(now_ms())
local interval, bytes = quota_entry(held[3], now)
if interval then
    local _, _, known = quota_totals(KEYS[3], now, interval)
    quota_add(KEYS[3], now, interval, -1, -bytes, known)
end
return redis.call('DEL', KEYS[1])
