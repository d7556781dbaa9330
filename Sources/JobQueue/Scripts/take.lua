-- Delivers waiting entries to a consumer, the more urgent classes first, never more than there is room for.
-- KEYS  queues in the order in which they are served
-- ARGV  1 group  2 consumer  3 count
-- Returns {index of the queue, entry id, job JSON or false, …}, three values an entry.
local left = tonumber(ARGV[3])
local taken = {}
for index, queue in ipairs(KEYS) do
    if left <= 0 then break end
    local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', queue, '>')
    if reply then
        for _, entry in ipairs(reply[1][2]) do
            left = left - 1
            local job = false
            local fields = entry[2] or {}
            for i = 1, #fields, 2 do
                if fields[i] == 'job' then job = fields[i + 1] end
            end
            taken[#taken + 1] = index
            taken[#taken + 1] = entry[1]
            taken[#taken + 1] = job
        end
    end
end
return taken
