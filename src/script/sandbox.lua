-- What scripts see of Lua. Run once for each interpreter, before any script.
--
-- A table is sealed by putting an empty one in its place, whose metatable reads through to the real one and refuses to
-- be written. LuaJIT has no read-only tables, so whatever looks past a metatable (rawset, next, table.insert ...) is
-- replaced here by a function that knows sealed tables.
--
--    script --> sealed globals (empty) --__index--> globals --__index--> "nonexistent global variable"
--
-- Nothing in here may hand a real table to a script: what a script could change, the next user's script would run.

local options = ...
local globals = _G
local error, type, select, tonumber, tostring = error, type, select, tonumber, tostring
local floor, ceil = math.floor, math.ceil
local rawget, rawset, next, pairs = rawget, rawset, next, pairs
local getmetatable, setmetatable = getmetatable, setmetatable
local load, pcall, collectgarbage, getfenv, setfenv = load, pcall, collectgarbage, getfenv, setfenv
local insert, foreach, concat = table.insert, table.foreach, table.concat

local allowed = {
    "_VERSION", "assert", "bit", "cjson", "cmsgpack", "collectgarbage", "coroutine", "error", "gcinfo",
    "getmetatable", "ipairs", "load", "loadstring", "math", "next", "os", "pairs", "pcall", "rawequal", "rawget",
    "rawset", "redis", "select", "server", "setmetatable", "string", "struct", "table", "tonumber", "tostring", "type",
    "unpack", "xpcall",
}
local libraries = {
    coroutine = { "create", "resume", "running", "status", "wrap", "yield" },
    math = {
        "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
        "ldexp", "log", "log10", "max", "min", "mod", "modf", "pi", "pow", "rad", "random", "randomseed", "sin", "sinh",
        "sqrt", "tan", "tanh",
    },
    os = { "clock" },
    string = {
        "byte", "char", "dump", "find", "format", "gfind", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse",
        "sub", "upper",
    },
    table = { "concat", "foreach", "foreachi", "getn", "insert", "maxn", "remove", "sort" },
}

local contents = setmetatable({}, { __mode = "k" }) -- sealed table -> the real one

local message = "Attempt to modify a readonly table"

-- By a function: Redis's say it without a place.
local function refuse()
    error(message, 0)
end

-- By an assignment.
local function refuse_assignment()
    error(message, 2)
end

local function seal(real, metatable)
    local sealed = setmetatable({}, {
        __index = real,
        __newindex = refuse_assignment,
        __metatable = metatable or false,
    })
    contents[sealed] = real
    return sealed
end

local function missing(_, name)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end

-- The error of a command is a table; pcall gives its text.

local function finish(ok, problem, ...)
    if not ok and type(problem) == "table" and type(problem.err) == "string" then
        return false, problem.err
    end
    return ok, problem, ...
end

function globals.pcall(...)
    return finish(pcall(...))
end

-- Functions that look past metatables.

function globals.getmetatable(value)
    local metatable = getmetatable(value)
    if metatable == false then
        return nil
    end
    return metatable
end

function globals.setmetatable(...)
    local sealed = ...
    if contents[sealed] then
        refuse()
    end
    return setmetatable(...)
end

function globals.rawget(...)
    local sealed, key = ...
    local real = contents[sealed]
    if real then
        return rawget(real, key)
    end
    return rawget(...)
end

function globals.rawset(...)
    local sealed = ...
    if contents[sealed] then
        refuse()
    end
    return rawset(...)
end

function globals.next(...)
    local sealed, key = ...
    local real = contents[sealed]
    if real then
        return next(real, key)
    end
    return next(...)
end

function globals.pairs(...)
    local sealed = ...
    local real = contents[sealed]
    if not real then
        return pairs(...)
    end
    local copy = {}
    for key, value in next, real do
        copy[key] = value
    end
    return pairs(copy)
end

function table.insert(...)
    local sealed = ...
    if contents[sealed] then
        refuse()
    end
    return insert(...)
end

function table.foreach(list, call)
    return foreach(contents[list] or list, call)
end

-- Source only, never bytecode, and with the globals that everybody has.

local function expect(kind, value, name)
    local given = type(value)
    if given ~= kind and not (kind == "string" and given == "number") then
        given = value == nil and "no value" or given
        error("bad argument #1 to '" .. name .. "' (" .. kind .. " expected, got " .. given .. ")", 3)
    end
end

local translate = options.translate

local function compile(source, name)
    local translated, problem = translate(source, name)
    if not translated then
        return nil, problem
    end
    return load(translated, name, "t")
end

function globals.loadstring(source, name)
    expect("string", source, "loadstring")
    return compile(source .. "", name or source .. "")
end

function globals.load(reader, name)
    expect("function", reader, "load")
    local pieces = {}
    repeat
        local piece = reader()
        if piece ~= nil and type(piece) ~= "string" then
            return nil, "reader function must return a string"
        end
        pieces[#pieces + 1] = piece
    until piece == nil or piece == ""
    return compile(concat(pieces), name or "=(load)")
end

-- The collector is everybody's: scripts may ask it and push it, not stop or tune it.

local harmless = { collect = true, count = true, step = true }
local tuning = { stop = 0, restart = 0, setpause = 200, setstepmul = 200 }

function globals.collectgarbage(what, size)
    what = what == nil and "collect" or what
    if tuning[what] then
        return tuning[what]
    end
    if not harmless[what] then
        error("bad argument #1 to 'collectgarbage' (invalid option '" .. tostring(what) .. "')", 2)
    end
    if what == "step" then
        return collectgarbage("step", size or 0)
    end
    return collectgarbage(what)
end

-- The same sequence as Redis for the same seed.

local random, seed = options.random, options.randomseed

function math.random(...)
    local count = select("#", ...)
    if count == 0 then
        return random()
    end
    local low, high = 1, ...
    local place = 1
    if count == 2 then
        low, high = ...
        place = 2
    elseif count > 2 then
        error("wrong number of arguments", 2)
    end
    low, high = tonumber(low), tonumber(high)
    if not low or not high then
        error("bad argument #" .. place .. " to 'random' (number expected, got " .. type((select(place, ...))) .. ")", 2)
    end
    low, high = (low < 0 and ceil or floor)(low), (high < 0 and ceil or floor)(high)
    if low > high then
        error("bad argument #" .. place .. " to 'random' (interval is empty)", 2)
    end
    return floor(random() * (high - low + 1)) + low
end

function math.randomseed(value)
    local number = tonumber(value)
    if not number then
        local given = value == nil and "no value" or type(value)
        error("bad argument #1 to 'randomseed' (number expected, got " .. given .. ")", 2)
    end
    seed(number)
end

-- Off unless `lua-enable-insecure-api` says so: the environments of functions. The real globals stay hidden, and the
-- one that new functions get stays what it is.

local sealed_globals

local function insecure()
    table.insert(allowed, "getfenv")
    table.insert(allowed, "setfenv")
    function globals.getfenv(what)
        if what == nil then
            return sealed_globals
        end
        if type(what) == "number" and what > 0 then
            what = what + 1
        end
        local environment = getfenv(what)
        return environment == globals and sealed_globals or environment
    end
    function globals.setfenv(what, environment)
        if what == 0 then
            refuse()
        end
        if type(what) == "number" then
            what = what + 1
        end
        return setfenv(what, environment)
    end
end

if options.insecure then
    insecure()
end

-- Throw away all else, and seal the rest.

math.mod, string.gfind, table.getn = math.fmod, string.gmatch, table.getn or function(list) return #list end

for name, members in next, libraries do
    local real, kept = globals[name], {}
    for _, member in next, members do
        kept[member] = real[member]
    end
    globals[name] = kept
end

getmetatable("").__index = globals.string

local kept = {}
for _, name in next, allowed do
    local value = globals[name]
    if type(value) == "table" then
        value = seal(value)
    end
    kept[name] = value
end
for name in pairs(globals) do
    globals[name] = nil
end
for name, value in next, kept do
    globals[name] = value
end
globals.server = globals.redis

local strings = getmetatable("")
strings.__metatable = seal({ __index = globals.string })

setmetatable(globals, { __index = missing })
local reader = { __index = globals, __newindex = refuse_assignment }
sealed_globals = setmetatable({}, reader)
contents[sealed_globals] = globals
reader.__metatable = seal({ __index = seal({}) })
globals._G = sealed_globals

-- While a library of functions is loaded, it sees its registration API and nothing else.

local registration = setmetatable({}, { __index = missing })
local library = seal(setmetatable(options.registration or {}, { __index = missing }))
registration.redis, registration.server = library, library

local function loading(yes)
    reader.__index = yes and registration or globals
    contents[sealed_globals] = yes and registration or globals
end

return sealed_globals, loading
