-- Lists a worker with the time of its heartbeat, and removes workers from the list that had none for long. The times are those of this server: a worker whose clock is ahead
-- would remove all others.
-- KEYS  1 list of workers
-- ARGV  1 worker  2 time in ms without a heartbeat after which a worker is removed
-- Returns the number of workers on the list.
redis.call('ZADD', KEYS[1], now_ms(), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', digits(now_ms() - ARGV[2]))
return redis.call('ZCARD', KEYS[1])
