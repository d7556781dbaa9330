-- Limits of an upstream or a tenant over all workers: concurrency, requests and tokens per minute. Holders that wait are served in order of arrival.
-- KEYS  1 prefix of the limit's keys; they share its hash tag
-- ARGV  1 operation  2 worker  3 lease ms  4 concurrency  5 requests per minute  6 tokens per minute (0: no limit)  7 prefix of the channels of workers, then
--       acquire: holder, tokens to reserve
--       release: holder, tokens used ('' : as many as were reserved)
--       renew: for each holder of the worker: holder, '1' if it was admitted else '0', tokens
-- Returns {wait, state, …}: wait: ms after which the holder that waits longest can be admitted, if nothing is released before; -1 if no time is known. state, for each
-- holder given: 1 admitted, 0 waiting. A holder that waits is announced on the channel of its worker when it is admitted, and when it becomes the next one.
--
-- Keys: `<prefix>:running` and `<prefix>:seen`, sorted sets of the admitted and the waiting holders by the time at which their leases expire; `<prefix>:waiting`, sorted
-- set of the waiting holders by time of arrival; `<prefix>:holders`, hash of '<tokens> <worker>' by holder; `<prefix>:rate`, hash of what is left of the minute's
-- requests and tokens. All expire some leases after the last call.
local prefix = KEYS[1]
local running, seen, waiting, holders, rate = prefix .. ':running', prefix .. ':seen', prefix .. ':waiting', prefix .. ':holders', prefix .. ':rate'
local worker, lease = ARGV[2], tonumber(ARGV[3])
local concurrency, requests_maximum, tokens_maximum = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local MINUTE = 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.3f', number) end
for key, kind in pairs({[running] = 'zset', [seen] = 'zset', [waiting] = 'zset', [holders] = 'hash', [rate] = 'hash'}) do own(key, kind) end

-- What is left of the minute. It may be negative after a job that used more than it had reserved.
local left = redis.call('HMGET', rate, 'requests', 'tokens', 'at')
local passed = math.max(0, now - (tonumber(left[3] or '') or now - MINUTE))
local function refilled(value, maximum)
    local number = tonumber(value or '')
    -- Other programs may have written it; Lua reads 'nan', too.
    if not number or number ~= number or number < -1e12 then number = maximum end
    return math.min(maximum, number + passed * maximum / MINUTE)
end
local requests, tokens = refilled(left[1], requests_maximum), refilled(left[2], tokens_maximum)

local function reserved(holder)
    local found = redis.call('HGET', holders, holder)
    local count, owner = string.match(found or '', '^(%d+) (.*)$')
    local number = tonumber(count) or 0
    -- Clients choose it: a job larger than the limit reserves all of it, and no more.
    if tokens_maximum > 0 then number = math.min(number, tokens_maximum) end
    return number, owner or ''
end

local function give_back(count) tokens = math.min(tokens_maximum, tokens + count) end

-- The first write: one that Redis accepts at the memory limit. It does not check the limit again in a script.
redis.call('HDEL', rate, '')
-- Workers that are gone give their places and reservations back.
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', running, '-inf', now)) do
    give_back((reserved(holder)))
    redis.call('ZREM', running, holder)
    redis.call('HDEL', holders, holder)
end
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now)) do
    redis.call('ZREM', seen, holder)
    redis.call('ZREM', waiting, holder)
    redis.call('HDEL', holders, holder)
end

local function wait_in_line(holder, count)
    if not redis.call('ZSCORE', waiting, holder) then redis.call('ZADD', waiting, string.format('%.0f', time[1] * 1000000 + time[2]), holder) end
    redis.call('ZADD', seen, now + lease, holder)
    redis.call('HSET', holders, holder, string.format('%.0f', count) .. ' ' .. worker)
end

local first = redis.call('ZRANGE', waiting, 0, 0)[1]
local operation = ARGV[1]
local given = {}
if operation == 'acquire' then
    given[1] = ARGV[8]
    if not redis.call('ZSCORE', running, ARGV[8]) then wait_in_line(ARGV[8], tonumber(ARGV[9])) end
elseif operation == 'release' then
    local count = reserved(ARGV[8])
    if redis.call('ZREM', running, ARGV[8]) == 1 then give_back(ARGV[9] == '' and 0 or count - tonumber(ARGV[9])) end
    redis.call('ZREM', waiting, ARGV[8])
    redis.call('ZREM', seen, ARGV[8])
    redis.call('HDEL', holders, ARGV[8])
else
    for index = 8, #ARGV - 2, 3 do
        local holder = ARGV[index]
        given[#given + 1] = holder
        if ARGV[index + 1] == '1' or redis.call('ZSCORE', running, holder) then
            -- Also if Redis has lost it: it uses the upstream.
            redis.call('ZADD', running, now + lease, holder)
            redis.call('HSETNX', holders, holder, ARGV[index + 2] .. ' ' .. worker)
        else
            wait_in_line(holder, tonumber(ARGV[index + 2]))
        end
    end
end

-- Admits waiting holders, in order of arrival.
local wait = -1
while true do
    local holder = redis.call('ZRANGE', waiting, 0, 0)[1]
    if not holder then break end
    local count, owner = reserved(holder)
    if concurrency > 0 and redis.call('ZCARD', running) >= concurrency then break end
    -- A job larger than the limit is admitted when nothing else was.
    local missing_requests = requests_maximum > 0 and math.max(0, 1 - requests) * MINUTE / requests_maximum or 0
    local missing_tokens = tokens_maximum > 0 and math.max(0, count - tokens) * MINUTE / tokens_maximum or 0
    wait = math.ceil(math.max(missing_requests, missing_tokens))
    if wait > 0 then break end
    wait = -1
    requests, tokens = requests - 1, tokens - count
    redis.call('ZREM', waiting, holder)
    redis.call('ZREM', seen, holder)
    redis.call('ZADD', running, now + lease, holder)
    if operation ~= 'acquire' or holder ~= given[1] then redis.call('PUBLISH', ARGV[7] .. owner, holder) end
end
local next_holder = redis.call('ZRANGE', waiting, 0, 0)[1]
if next_holder and next_holder ~= first and wait > 0 then
    local _, owner = reserved(next_holder)
    if owner ~= worker then redis.call('PUBLISH', ARGV[7] .. owner, next_holder) end
end
redis.call('HSET', rate, 'at', now)
-- What is not limited now is full when it is limited later.
for name, value in pairs({requests = requests_maximum > 0 and text(requests), tokens = tokens_maximum > 0 and text(tokens)}) do
    if value then redis.call('HSET', rate, name, value) else redis.call('HDEL', rate, name) end
end
local expiry = math.ceil(lease * 4 / 1000) + 120
for _, key in ipairs({running, seen, waiting, holders, rate}) do redis.call('EXPIRE', key, expiry) end
local answer = {wait}
for index, holder in ipairs(given) do answer[index + 1] = redis.call('ZSCORE', running, holder) and 1 or 0 end
return answer
