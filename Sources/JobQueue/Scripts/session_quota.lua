-- Functions that count an owner's sessions and their bytes, for the scripts of sessions. They use those of shared.lua.
-- The quota is a hash: `sessions` and `bytes` are totals; `s:<end>` and `b:<end>` are the numbers that expire in the interval ending at <end> (ms since 1970);
-- `due` is the earliest <end>. The field `quota` of a session is `<end> <bytes>`, its share of the counts. A session is not counted after its interval, even
-- when it was never deleted explicitly; the totals are recomputed at each interval's end, so counting errors do not accumulate.

-- The fields of an interval.
local function interval_fields(interval) return 's:' .. digits(interval), 'b:' .. digits(interval) end

-- Removes expired intervals. Returns the total sessions and bytes, and what `quota_add` may take instead of reading the quota again.
-- interval: the one for which that is.
local function quota_totals(key, now, interval)
    local known = redis.pcall('HMGET', key, 'sessions', 'bytes', 'due', interval_fields(interval))
    if known.err then
        -- Not a hash: the key was written by something else.
        redis.call('DEL', key)
        return 0, 0
    end
    local due = tonumber(known[3])
    if not due then return 0, 0 end
    if now < due then return tonumber(known[1]) or 0, tonumber(known[2]) or 0, known end
    local sessions, bytes, first = 0, 0, nil
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
        local kind, interval = string.match(all[i], '^([sb]):(%d+)$')
        if kind then
            if tonumber(interval) <= now then
                redis.call('HDEL', key, all[i])
            else
                local value = tonumber(all[i + 1]) or 0
                if kind == 's' then sessions = sessions + value else bytes = bytes + value end
                first = math.min(first or tonumber(interval), tonumber(interval))
            end
        end
    end
    if first then
        redis.call('HSET', key, 'sessions', digits(sessions), 'bytes', digits(bytes), 'due', digits(first))
    else
        redis.call('DEL', key)
    end
    return sessions, bytes
end

-- Upper bound of a session's lifetime in ms. Later interval ends are ignored as invalid.
local LONGEST = 4000000000

-- The interval end and bytes that a session is counted with; nil and 0 when it is not counted.
-- quota: the session's field `quota`, or false.
local function quota_entry(quota, now)
    local interval, bytes = string.match(quota or '', '^(%d+) (%d+)$')
    if interval and tonumber(interval) > now and tonumber(interval) < now + LONGEST then return tonumber(interval), tonumber(bytes) end
    return nil, 0
end

-- Adds sessions and bytes to the totals and to one interval; both may be negative. Extends the expiry of the quota key.
-- known: from `quota_totals` for the same interval, if nothing was added since; or nil.
local function quota_add(key, now, interval, sessions, bytes, known)
    local s, b = interval_fields(interval)
    known = known or redis.call('HMGET', key, 'sessions', 'bytes', 'due', s, b)
    local function sum(index, number) return digits(math.max(0, (tonumber(known[index]) or 0) + number)) end
    local due = math.min(tonumber(known[3]) or interval, interval)
    redis.call('HSET', key, 'sessions', sum(1, sessions), 'bytes', sum(2, bytes), s, sum(4, sessions), b, sum(5, bytes), 'due', digits(due))
    -- The first addition to an interval has extended the expiry.
    if not known[4] and now + redis.call('PTTL', key) < interval then redis.call('PEXPIREAT', key, digits(interval)) end
end
