-- Stores a client secret of the Realtime API, unless its owner has too many.
-- KEYS  1 secret (string)   2 the owner's secrets (sorted set: digest by expiry)
-- ARGV  1 digest   2 value   3 expiry s   4 now, seconds since 1970   5 maximum secrets of the owner
-- Returns 1 stored, 0 refused.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[4])
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('ZADD', KEYS[2], tonumber(ARGV[4]) + tonumber(ARGV[3]), ARGV[1])
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[3]) then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return 1
