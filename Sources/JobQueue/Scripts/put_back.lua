-- Returns entries to the queue that were delivered to a worker and not claimed.
-- KEYS  1 queue  2 channel that announces returned jobs
-- ARGV  1 group  2 worker  3 consumer that belongs to no worker, then entry ids
-- Returns the number of entries returned.
local count = 0
for i = 4, #ARGV do
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
    if #pending == 1 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[i], 'IDLE', UNOWNED_IDLE, 'JUSTID')
        return_entry(KEYS[1], ARGV[i], KEYS[2])
        count = count + 1
    end
end
return count
