-- Reads a page of a job's log. Read-only.
-- KEYS  the log     ARGV  1 start of the range, as in XRANGE  2 maximum bytes of the page
-- Returns {entries, last}. entries: as in XRANGE, at least one if there is any, and further ones while they fit into the maximum. last: 1 if the log ends with them, else 0.
local entries, size, start, maximum = {}, 0, ARGV[1], tonumber(ARGV[2])
while true do
    local batch = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 16)
    for _, entry in ipairs(batch) do
        local length = #entry[1]
        for _, field in ipairs(entry[2]) do length = length + #field end
        if #entries > 0 and size + length > maximum then return {entries, 0} end
        entries[#entries + 1] = entry
        size = size + length
        start = '(' .. entry[1]
    end
    if #batch < 16 then return {entries, 1} end
end
