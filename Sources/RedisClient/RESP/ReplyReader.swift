import CHiredis
import NIOCore

/// Receives the values that a `ReplyReader` parses, in wire order.
protocol ReplySink: AnyObject {
    /// An array begins; its `count` elements follow.
    func array(count: Int)
    func bulk(_ bytes: Span<UInt8>)
    func simple(_ bytes: Span<UInt8>)
    func error(_ bytes: Span<UInt8>)
    func integer(_ value: Int64)
    func null()
    /// A reply is complete and can be delivered.
    /// - Throws: `.protocolViolation` for a reply of an unexpected kind.
    func finish() throws(RedisError)
}

/// Parses RESP2 with hiredis and enforces limits that hiredis lacks. This is the only file that uses hiredis.
///
/// hiredis 0.14.1 rejects bad numbers, negative lengths, arrays above INT_MAX and nesting deeper than its stack. This class also rejects:
/// - a declared bulk string length above the maximum of a reply (hiredis would buffer up to 2^63 bytes),
/// - a line without end (hiredis would buffer it and search it from the start with every read),
/// - an array whose elements exhaust memory,
/// - a bulk string that is not followed by CR LF.
@safe
final class ReplyReader {
    /// Default maximum bytes of a reply: Redis' limit of one string (`proto-max-bulk-len`).
    static let maximumReply = 512 << 20
    /// Maximum bytes of a simple string, error or header.
    static let maximumLine = 64 << 10
    /// Maximum number of elements in a reply, all depths together: an element of five bytes on the wire needs far more memory.
    static let maximumElements = 1 << 20

    var sink: any ReplySink
    /// Freed by `deinit` only; hiredis calls back only inside `next`.
    private let reader: UnsafeMutablePointer<redisReader>
    private let replyMaximum: Int
    private var violation: String?
    /// Bytes received since the last complete reply.
    private var bytes = 0
    private var elements = 0

    /// - Parameter replyMaximum: maximum bytes of one reply.
    /// - Throws: `.protocolViolation` when hiredis cannot allocate its reader.
    init(sink: any ReplySink, replyMaximum: Int = maximumReply) throws(RedisError) {
        guard let reader = unsafe redisReaderCreateWithFunctions(Self.functions.pointer) else {
            throw RedisError(.protocolViolation, "out of memory: cannot allocate the reader of Redis replies")
        }
        unsafe self.reader = reader
        self.replyMaximum = replyMaximum
        self.sink = sink
        // Unretained is safe: the reader is freed with this object and calls back only during `next`.
        unsafe reader.pointee.privdata = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit { unsafe redisReaderFree(reader) }

    /// Appends received bytes.
    func feed(_ buffer: ByteBuffer) throws(RedisError) {
        bytes += buffer.readableBytes
        let result = unsafe buffer.withUnsafeReadableBytes { space in
            unsafe redisReaderFeed(reader, space.baseAddress?.assumingMemoryBound(to: CChar.self), space.count)
        }
        if result != REDIS_OK { throw failure() }
    }

    /// Parses up to the end of the next reply and passes it to the sink.
    /// - Returns: false when more bytes are needed.
    /// - Throws: `.protocolViolation`; the reader is not usable afterwards.
    func next() throws(RedisError) -> Bool {
        var reply: UnsafeMutableRawPointer?
        let result = unsafe redisReaderGetReply(reader, &reply)
        if violation != nil || result != REDIS_OK { throw failure() }
        guard unsafe reply != nil else {
            try checkUnfinished()
            return false
        }
        unsafe bytes = reader.pointee.len - reader.pointee.pos
        elements = 0
        try sink.finish()
        return true
    }

    private func failure() -> RedisError {
        let hiredisMessage = unsafe withUnsafeBytes(of: reader.pointee.errstr) { text in
            unsafe String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
        }
        let reason: String = violation ?? hiredisMessage
        return RedisError(.protocolViolation, "invalid reply from Redis: \(reason)")
    }

    /// Applies the limits to an incomplete reply. hiredis has consumed the type byte of the current item, so the rest is an incomplete line,
    /// or the length of a bulk string with the bytes received so far.
    private func checkUnfinished() throws(RedisError) {
        if bytes > replyMaximum {
            violation = "a reply is longer than \(replyMaximum >> 20) MB"
            throw failure()
        }
        let (position, length) = unsafe (reader.pointee.pos, reader.pointee.len)
        guard length > position, let start = unsafe reader.pointee.buf else { return }
        let rest = unsafe UnsafeRawBufferPointer(start: start + position, count: length - position)
        // A number has at most 20 characters. If its line is complete, hiredis can only have stopped inside a bulk string.
        if let end = unsafe rest.prefix(24).firstIndex(of: 0x0D), end + 1 < rest.count, unsafe rest[end + 1] == 0x0A {
            let announced = unsafe rest[..<end].reduce(0) { $0 &* 10 &+ Int($1) &- 0x30 }
            if announced > replyMaximum { violation = "a bulk string of \(announced) bytes is longer than \(replyMaximum >> 20) MB" }
        } else if rest.count > Self.maximumLine {
            violation = "a line is longer than 64 KB"
        }
        if violation != nil { throw failure() }
    }

    /// Counts the elements of an array; false when there are too many.
    private func count(elements more: Int) -> Bool {
        elements += more
        if elements > Self.maximumElements { violation = "an array of more than \(Self.maximumElements) elements" }
        return violation == nil
    }

    /// Passes a string to the sink; false for a violation.
    /// - Parameter ending: the two bytes after the string, which hiredis buffers and does not check.
    private func string(_ type: Int32, _ bytes: Span<UInt8>, _ ending: (UInt8, UInt8)) -> Bool {
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

    /// The callback table. hiredis keeps the pointer, so the table is allocated once and never freed. It is immutable after initialization,
    /// which makes `@unchecked Sendable` safe.
    @safe
    private struct Functions: @unchecked Sendable {
        let pointer: UnsafeMutablePointer<redisReplyObjectFunctions>
    }

    private static let functions: Functions = {
        let table = UnsafeMutablePointer<redisReplyObjectFunctions>.allocate(capacity: 1)
        unsafe table.initialize(to: redisReplyObjectFunctions())
        unsafe table.pointee.createString = { task, bytes, length in
            guard let task = unsafe task, let bytes = unsafe bytes, let reader = unsafe ReplyReader.of(task) else { return nil }
            let ending = unsafe (UInt8(bitPattern: bytes[length]), UInt8(bitPattern: bytes[length + 1]))
            let string = unsafe UnsafeRawBufferPointer(start: bytes, count: length).bindMemory(to: UInt8.self).span
            return unsafe reader.string(task.pointee.type, string, ending) ? ReplyReader.placeholder : nil
        }
        unsafe table.pointee.createArray = { task, count in
            guard let task = unsafe task, let reader = unsafe ReplyReader.of(task), reader.count(elements: Int(count)) else { return nil }
            reader.sink.array(count: Int(count))
            return unsafe ReplyReader.placeholder
        }
        unsafe table.pointee.createInteger = { task, value in
            guard let task = unsafe task, let reader = unsafe ReplyReader.of(task) else { return nil }
            reader.sink.integer(value)
            return unsafe ReplyReader.placeholder
        }
        unsafe table.pointee.createNil = { task in
            guard let task = unsafe task, let reader = unsafe ReplyReader.of(task) else { return nil }
            reader.sink.null()
            return unsafe ReplyReader.placeholder
        }
        unsafe table.pointee.freeObject = { _ in }
        return unsafe Functions(pointer: table)
    }()

    /// A non-null placeholder for a parsed value. hiredis only checks for null; the values are in the sink.
    private static var placeholder: UnsafeMutableRawPointer? { unsafe UnsafeMutableRawPointer(bitPattern: 1) }

    /// The reader to which a hiredis task belongs.
    private static func of(_ task: UnsafePointer<redisReadTask>) -> ReplyReader? {
        unsafe task.pointee.privdata.map { unsafe Unmanaged<ReplyReader>.fromOpaque($0).takeUnretainedValue() }
    }
}
