-- Deletes a consumer without pending entries. Check and deletion are atomic, because deleting a consumer loses entries delivered to it in between.
-- KEYS  queues
-- ARGV  1 group  2 consumer
-- Returns the number of queues in which the consumer was deleted.
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
