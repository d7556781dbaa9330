-- A page of a job's log. Changes nothing.
-- KEYS  the log     ARGV  1 where to begin, as XRANGE takes it  2 bytes of the page
-- Returns {the entries as XRANGE does: one if there is any, and further ones while they fit into the bytes; 1 if the log ends with them, else 0}.
local entries, size, start, maximum = {}, 0, ARGV[1], tonumber(ARGV[2])
while true do
    local some = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 16)
    for _, entry in ipairs(some) do
        local length = #entry[1]
        for _, field in ipairs(entry[2]) do length = length + #field end
        if #entries > 0 and size + length > maximum then return {entries, 0} end
        entries[#entries + 1] = entry
        size = size + length
        start = '(' .. entry[1]
    end
    if #some < 16 then return {entries, 1} end
end
