import CHiredis
import NIOCore

/// What a `ReplyReader` finds, in the order of the wire. Bytes are valid during the call only.
protocol ReplySink: AnyObject {
    /// As many values follow, which belong to this one.
    func array(count: Int)
    func bulk(_ bytes: UnsafeRawBufferPointer)
    func simple(_ bytes: UnsafeRawBufferPointer)
    func error(_ bytes: UnsafeRawBufferPointer)
    func integer(_ value: Int64)
    func null()
    /// A reply is complete: hand it on.
    ///
    /// Throws `.protocolViolation` for one of another kind than was expected.
    func finish() throws(RedisError)
}

/// hiredis' parser of RESP2, with its limits made sure of. This is the only file that touches hiredis.
///
/// hiredis 0.14.1 refuses bad numbers, negative lengths, arrays above INT_MAX and nesting deeper than its stack. It does not refuse, and
/// this class does:
/// a bulk string's declared length above the maximum of a reply (it would buffer up to 2^63 bytes), a line without end (which it would buffer, and search
/// anew from its start with every read), an array whose elements exhaust memory, and a bulk string that is not followed by CR LF.
final class ReplyReader {
    /// Redis' own limit of a string (`proto-max-bulk-len`), here for a whole reply, unless told otherwise.
    static let maximumReply = 512 << 20
    /// Simple strings, errors and headers.
    static let maximumLine = 64 << 10
    /// Of a reply, all depths together: each costs memory even when it is five bytes on the wire.
    static let maximumElements = 1 << 20

    var sink: any ReplySink
    private let reader: UnsafeMutablePointer<redisReader>
    private let replyMaximum: Int
    private var violation: String?
    /// Fed since the last complete reply.
    private var bytes = 0
    private var elements = 0

    /// - Parameter replyMaximum: bytes of one reply.
    init(sink: any ReplySink, replyMaximum: Int = maximumReply) throws(RedisError) {
        guard let reader = redisReaderCreateWithFunctions(Self.functions.pointer) else {
            throw RedisError(.protocolViolation, "no memory for the reader of Redis' replies")
        }
        self.reader = reader
        self.replyMaximum = replyMaximum
        self.sink = sink
        // Not retained: the reader lives only as long as this object, and calls back only inside `next`.
        reader.pointee.privdata = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit { redisReaderFree(reader) }

    func feed(_ buffer: ByteBuffer) throws(RedisError) {
        bytes += buffer.readableBytes
        let result = buffer.withUnsafeReadableBytes { space in
            redisReaderFeed(reader, space.baseAddress?.assumingMemoryBound(to: CChar.self), space.count)
        }
        if result != REDIS_OK { throw failure() }
    }

    /// Parses up to the end of the next reply and has the sink hand it on. False when more bytes are needed.
    func next() throws(RedisError) -> Bool {
        var reply: UnsafeMutableRawPointer?
        let result = redisReaderGetReply(reader, &reply)
        if violation != nil || result != REDIS_OK { throw failure() }
        guard reply != nil else {
            try checkUnfinished()
            return false
        }
        bytes = reader.pointee.len - reader.pointee.pos
        elements = 0
        try sink.finish()
        return true
    }

    private func failure() -> RedisError {
        let said = withUnsafeBytes(of: reader.pointee.errstr) { text in String(decoding: text.prefix { $0 != 0 }, as: UTF8.self) }
        let reason: String = violation ?? said
        return RedisError(.protocolViolation, "Redis' answer cannot be read: \(reason)")
    }

    /// hiredis stopped inside an item whose type byte it has taken: what is left is a line without end, or a bulk string's length and the
    /// bytes there are.
    private func checkUnfinished() throws(RedisError) {
        if bytes > replyMaximum {
            violation = "a reply is longer than \(replyMaximum >> 20) MB"
            throw failure()
        }
        let (position, length) = (reader.pointee.pos, reader.pointee.len)
        guard length > position, let start = reader.pointee.buf else { return }
        let rest = UnsafeRawBufferPointer(start: start + position, count: length - position)
        // Twenty characters at most make a number; with its end of line hiredis can only have stopped at a bulk string's bytes.
        if let end = rest.prefix(24).firstIndex(of: 0x0D), end + 1 < rest.count, rest[end + 1] == 0x0A {
            let announced = rest[..<end].reduce(0) { $0 &* 10 &+ Int($1) &- 0x30 }
            if announced > replyMaximum { violation = "a bulk string of \(announced) bytes is announced, over \(replyMaximum >> 20) MB" }
        } else if rest.count > Self.maximumLine {
            violation = "a line is longer than 64 KB"
        }
        if violation != nil { throw failure() }
    }

    private func count(elements more: Int) -> Bool {
        elements += more
        if elements > Self.maximumElements { violation = "an array of more than \(Self.maximumElements) elements" }
        return violation == nil
    }

    /// hiredis has all of the string in its buffer, and two more bytes, which it does not look at.
    private func string(_ type: Int32, _ bytes: UnsafeRawBufferPointer, _ ending: (UInt8, UInt8)) -> Bool {
        guard ending == (0x0D, 0x0A) else {
            violation = "a string is not followed by CR LF"
            return false
        }
        switch type {
        case REDIS_REPLY_STRING: sink.bulk(bytes)
        case REDIS_REPLY_STATUS: sink.simple(bytes)
        case REDIS_REPLY_ERROR: sink.error(bytes)
        default:
            violation = "a reply of a type that RESP2 does not have"
            return false
        }
        return true
    }

    // MARK: C

    /// hiredis keeps the pointer, so the table is made once and never freed; nothing writes to it afterwards.
    private struct Functions: @unchecked Sendable {
        let pointer: UnsafeMutablePointer<redisReplyObjectFunctions>
    }

    private static let functions: Functions = {
        let table = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        table.initialize(to: redisReplyObjectFunctions())
        table.pointee.createString = { task, bytes, length in
            guard let task, let bytes, let reader = ReplyReader.of(task) else { return nil }
            let ending = (UInt8(bitPattern: bytes[length]), UInt8(bitPattern: bytes[length + 1]))
            let done = reader.string(task.pointee.type, UnsafeRawBufferPointer(start: bytes, count: length), ending)
            return done ? ReplyReader.made : nil
        }
        table.pointee.createArray = { task, count in
            guard let task, let reader = ReplyReader.of(task), reader.count(elements: Int(count)) else { return nil }
            reader.sink.array(count: Int(count))
            return ReplyReader.made
        }
        table.pointee.createInteger = { task, value in
            guard let task, let reader = ReplyReader.of(task) else { return nil }
            reader.sink.integer(value)
            return ReplyReader.made
        }
        table.pointee.createNil = { task in
            guard let task, let reader = ReplyReader.of(task) else { return nil }
            reader.sink.null()
            return ReplyReader.made
        }
        table.pointee.freeObject = { _ in }
        return Functions(pointer: table)
    }()

    /// What stands for a value on hiredis' side, which only asks whether there is one: values live in the sink.
    private static var made: UnsafeMutableRawPointer? { UnsafeMutableRawPointer(bitPattern: 1) }

    private static func of(_ task: UnsafePointer<redisReadTask>) -> ReplyReader? {
        task.pointee.privdata.map { Unmanaged<ReplyReader>.fromOpaque($0).takeUnretainedValue() }
    }
}
