-- Delivers waiting entries to a consumer, the more urgent classes first, never more than there is room for.
-- KEYS  queues in the order in which they are served
-- ARGV  1 group  2 consumer  3 count  4 bytes of jobs beyond which no further ones are read
-- Returns {entries, faults}. entries: {index of the queue, entry id, job JSON or false, …}, three values an entry.
-- faults: {index of the queue, error, …}: a queue that cannot be read is left out, the others are served.
-- Entries read in one step, so that the bytes cannot exceed their limit by more than these.
local STEP = 8
local left = tonumber(ARGV[3])
local room = tonumber(ARGV[4])
local taken, faults = {}, {}
for index, queue in ipairs(KEYS) do
    local more = true
    while more and left > 0 and room > 0 do
        local count = math.min(left, STEP)
        local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', queue, '>')
        local entries = {}
        if type(reply) == 'table' and reply.err then
            faults[#faults + 1] = index
            faults[#faults + 1] = reply.err
        elseif reply then
            entries = reply[1][2]
        end
        more = #entries == count
        for _, entry in ipairs(entries) do
            left = left - 1
            local job = false
            local fields = entry[2] or {}
            for i = 1, #fields, 2 do
                if fields[i] == 'job' then job = fields[i + 1] end
            end
            if job then room = room - #job end
            taken[#taken + 1] = index
            taken[#taken + 1] = entry[1]
            taken[#taken + 1] = job
        end
    end
end
return {taken, faults}
