-- Finds the groups of keys in which a key exists. For a cluster, where EXISTS takes keys of one slot: a script may read the keys of all slots of its server.
-- KEYS  1 any key of the server
-- ARGV  1 number of keys in each group  2… the keys, group by group
-- Returns the numbers of the groups, from 0; with those whose slot the server does not serve at the moment.
local size, found = tonumber(ARGV[1]), {}
for first = 2, #ARGV, size do
    local count = redis.pcall('EXISTS', unpack(ARGV, first, math.min(first + size - 1, #ARGV)))
    if type(count) ~= 'number' or count > 0 then found[#found + 1] = (first - 2) / size end
end
return found
