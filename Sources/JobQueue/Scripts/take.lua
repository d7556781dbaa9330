-- Delivers waiting entries to a consumer, in the order of the queues, up to a maximum count and a maximum of bytes.
-- KEYS  queues in the order in which they are read
-- ARGV  1 group  2 consumer  3 maximum count  4 bytes of job JSON after which no further entries are read
-- Returns {entries, faults}. entries: {index of the queue, entry id, job JSON or false, …}, three values per entry.
-- faults: {index of the queue, error, …}, two values per unreadable queue; the other queues are read.
-- Maximum number of entries per read. The first read delivers one entry, and later ones only as many as fit if they are as large as the largest one so far: every job
-- passes through this script, which blocks Redis for some milliseconds per megabyte.
local STEP = 8
local remaining_count = tonumber(ARGV[3])
local remaining_bytes = tonumber(ARGV[4])
local step, largest = 1, 1
local taken, faults = {}, {}
for index, queue in ipairs(KEYS) do
    local more = true
    while more and remaining_count > 0 and remaining_bytes > 0 do
        local count = math.min(remaining_count, step, math.max(1, math.floor(remaining_bytes / largest)))
        step = math.min(STEP, step * 2)
        local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', queue, '>')
        local entries = {}
        if is_unexecuted(reply) and #taken == 0 then return reply end
        if type(reply) == 'table' and reply.err then
            faults[#faults + 1] = index
            faults[#faults + 1] = reply.err
        elseif reply then
            entries = reply[1][2]
        end
        more = #entries == count
        for _, entry in ipairs(entries) do
            remaining_count = remaining_count - 1
            local job = false
            local fields = entry[2] or {}
            for i = 1, #fields, 2 do
                if fields[i] == 'job' then job = fields[i + 1] end
            end
            if job then
                remaining_bytes = remaining_bytes - #job
                largest = math.max(largest, #job)
            end
            taken[#taken + 1] = index
            taken[#taken + 1] = entry[1]
            taken[#taken + 1] = job
        end
    end
end
return {taken, faults}
