-- Keeps a stored response, its job and the owner's ledger for at least as long as a new response.
-- KEYS  1 response (hash)   2 byte ledger of the owner's responses (hash)   3 record   4 log
-- ARGV  1 expiry s
-- Returns the number of keys that are kept longer. A key without an expiry, as that of a running job, stays without one.
local extended = 0
for _, key in ipairs(KEYS) do
    local left = redis.call('TTL', key)
    if left >= 0 and left < tonumber(ARGV[1]) then
        redis.call('EXPIRE', key, ARGV[1])
        extended = extended + 1
    end
end
return extended
