-- Writes a session's fields, if this gateway still holds it and its owner's sessions stay within their quota.
-- KEYS  1 session   2 this gateway's sessions with running requests   3 the owner's quota (session-quota.lua)
-- ARGV  1 gateway   2 epoch   3 expiry (ms since 1970)   4 has running requests 0|1   5 may create it: 0 no, 1 within the quota, 2 always   6 session id
--       7 sessions that the owner may have here (0: no limit)   8 bytes of theirs (0: no limit)   9 end of the interval in which it expires (ms since 1970)
--       10 how many fields to delete, then those, then field, value, …
-- Returns 1 written, 2 written but for settings and history, 0 another gateway holds it, -1 there is no such session, -2 not written; 2 and -2 as the quota
-- is used up. A request's field is written whole or not at all.
local BASE = 512
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch')
if held[2] then
    if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
elseif ARGV[5] == '0' then
    return -1
end

local now = now_ms()
local sessions, bytes = quota_totals(KEYS[3], now)
local old_interval, old_bytes = quota_entry(KEYS[1], now)
local first = 11 + tonumber(ARGV[10])
-- Of fields that are written or deleted, what they add; those that a gateway can do without apart.
local added, optional, is_request = 0, 0, false
for i = 11, first - 1 do added = added - redis.call('HSTRLEN', KEYS[1], ARGV[i]) end
for i = first, #ARGV - 1, 2 do
    local grown = #ARGV[i + 1] - redis.call('HSTRLEN', KEYS[1], ARGV[i])
    if ARGV[i] == 'settings' or ARGV[i] == 'history' then optional = optional + grown else added = added + grown end
    if string.sub(ARGV[i], 1, 2) == 'r:' then is_request = true end
end
-- A whole session has its requests' fields too: it is written as far as it may be.
if optional ~= 0 or first + 4 <= #ARGV then is_request = false end
local size = (old_interval and old_bytes or BASE) + added + optional
local is_over = tonumber(ARGV[8]) > 0 and size > old_bytes and bytes - old_bytes + size > tonumber(ARGV[8])
if ARGV[5] == '1' then
    local maximum = tonumber(ARGV[7])
    if is_over or (maximum > 0 and not old_interval and sessions >= maximum) then return -2 end
end
if is_over and is_request and ARGV[5] == '0' then return -2 end

if not held[2] then redis.call('HSET', KEYS[1], 'gateway', ARGV[1], 'epoch', ARGV[2]) end
for i = 11, first - 1 do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = first, #ARGV - 1, 2 do
    if not is_over or (ARGV[i] ~= 'settings' and ARGV[i] ~= 'history') then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
if is_over then
    size = math.max(BASE, size - optional - redis.call('HSTRLEN', KEYS[1], 'history'))
    redis.call('HDEL', KEYS[1], 'history')
end
local interval = tonumber(ARGV[9])
if interval ~= old_interval then
    if old_interval then quota_add(KEYS[3], now, old_interval, -1, -old_bytes) end
    quota_add(KEYS[3], now, interval, 1, size)
elseif size ~= old_bytes then
    quota_add(KEYS[3], now, interval, 0, size - old_bytes)
end
redis.call('HSET', KEYS[1], 'quota', digits(interval) .. ' ' .. digits(size))
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
if ARGV[4] == '1' then
    redis.call('SADD', KEYS[2], ARGV[6])
    redis.call('PEXPIRE', KEYS[2], 86400000)
else
    redis.call('SREM', KEYS[2], ARGV[6])
end
return is_over and 2 or 1
