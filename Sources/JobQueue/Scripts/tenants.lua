-- Replaces the settings of tenants. See `tenant_of` in shared.lua for the form.
-- KEYS  1 hash
-- ARGV  1 digest of all settings  2 expiry s, then name, settings, …
-- Returns 1 (written) or 0 (they were the same).
local DIGEST = '\1digest'
own(KEYS[1], 'hash')
local changed = redis.call('HGET', KEYS[1], DIGEST) ~= ARGV[1]
if changed then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], DIGEST, ARGV[1])
    for index = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1]) end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return changed and 1 or 0
