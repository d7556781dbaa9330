-- Writes fields of a session, if this gateway still holds it and the owner's quota allows it.
-- KEYS  1 session (hash)   2 set of this gateway's sessions with running requests   3 the owner's quota (hash)
-- ARGV  1 this gateway   2 epoch   3 expiry (ms since 1970)   4 has running requests: 0 or 1   5 may create the session: 0 no, 1 within the quota, 2 always
--       6 session id   7 maximum sessions of the owner in this partition (0: no limit)   8 maximum bytes of them (0: no limit)
--       9 end of the quota interval that holds the expiry (ms since 1970)   10 number of fields to delete, followed by their names, then field, value, …
-- Returns 1 written, 2 written without settings and history because the quota is used up, 0 another gateway holds the session, -1 no such session,
-- -2 nothing written because the quota is used up.

-- Bytes counted per session for Redis' own overhead.
local BASE = 512
local held = redis.call('HMGET', KEYS[1], 'gateway', 'epoch', 'quota')
if held[2] then
    if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then return 0 end
elseif ARGV[5] == '0' then
    return -1
end

local now = tonumber(now_ms())
local interval = tonumber(ARGV[9])
local sessions, bytes, known = quota_totals(KEYS[3], now, interval)
local old_interval, old_bytes = quota_entry(held[3], now)
local first = 11 + tonumber(ARGV[10])
local function is_optional(name) return name == 'settings' or name == 'history' end
-- Change in bytes by this write: `optional` for settings and history, which a gateway can do without, `added` for all other fields. The time of the last request
-- always has the same size.
local added, optional, is_request = 0, 0, false
for i = 11, first - 1 do added = added - redis.call('HSTRLEN', KEYS[1], ARGV[i]) end
for i = first, #ARGV - 1, 2 do
    if ARGV[i] ~= 'last_request_ms' then
        local grown = #ARGV[i + 1] - (held[2] and redis.call('HSTRLEN', KEYS[1], ARGV[i]) or 0)
        if is_optional(ARGV[i]) then optional = optional + grown else added = added + grown end
        if string.sub(ARGV[i], 1, 2) == 'r:' then is_request = true end
    end
end
-- Only a write of a single request is rejected as a whole; a write of several fields leaves out the optional ones instead.
if optional ~= 0 or first + 4 <= #ARGV then is_request = false end
local size = (old_interval and old_bytes or BASE) + added + optional
local is_over = tonumber(ARGV[8]) > 0 and size > old_bytes and bytes - old_bytes + size > tonumber(ARGV[8])
if ARGV[5] == '1' then
    local maximum = tonumber(ARGV[7])
    if is_over or (maximum > 0 and not old_interval and sessions >= maximum) then return -2 end
end
if is_over and is_request and ARGV[5] == '0' then return -2 end

if first > 11 then redis.call('HDEL', KEYS[1], unpack(ARGV, 11, first - 1)) end
if is_over then
    size = math.max(BASE, size - optional - redis.call('HSTRLEN', KEYS[1], 'history'))
    redis.call('HDEL', KEYS[1], 'history')
end
if interval ~= old_interval then
    if old_interval then
        quota_add(KEYS[3], now, old_interval, -1, -old_bytes)
        known = nil
    end
    quota_add(KEYS[3], now, interval, 1, size, known)
elseif size ~= old_bytes then
    quota_add(KEYS[3], now, interval, 0, size - old_bytes, known)
end
local fields = {'quota', digits(interval) .. ' ' .. digits(size)}
local function set_field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end
if not held[2] then
    set_field('gateway', ARGV[1])
    set_field('epoch', ARGV[2])
end
for i = first, #ARGV - 1, 2 do
    if not is_over or not is_optional(ARGV[i]) then set_field(ARGV[i], ARGV[i + 1]) end
end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
if ARGV[4] == '1' then
    redis.call('SADD', KEYS[2], ARGV[6])
    redis.call('PEXPIRE', KEYS[2], 86400000)
else
    redis.call('SREM', KEYS[2], ARGV[6])
end
return is_over and 2 or 1
