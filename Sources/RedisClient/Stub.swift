enum RedisClientRoom {}
