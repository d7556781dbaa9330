-- Deletes a consumer that has nothing pending, in one step: what were delivered to it meanwhile would be lost.
-- KEYS  queues
-- ARGV  1 group  2 consumer
-- Returns how many of the queues had it with nothing pending.
local count = 0
for _, queue in ipairs(KEYS) do
    local ok, consumers = pcall(redis.call, 'XINFO', 'CONSUMERS', queue, ARGV[1])
    if ok and type(consumers) == 'table' then
        for _, consumer in ipairs(consumers) do
            local name, pending
            for i = 1, #consumer, 2 do
                if consumer[i] == 'name' then name = consumer[i + 1] elseif consumer[i] == 'pending' then pending = consumer[i + 1] end
            end
            if name == ARGV[2] and pending == 0 then
                redis.call('XGROUP', 'DELCONSUMER', queue, ARGV[1], name)
                count = count + 1
            end
        end
    end
end
return count
