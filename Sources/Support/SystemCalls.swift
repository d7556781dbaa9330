import Glibc

/// System calls with safe parameters and results. C functions that take only numbers are called directly where they are needed.
///
/// Functions that can fail return nil, false or a negative number like the call itself; `errorText()` then describes `errno`.
package enum SystemCalls {
    /// The system's description of an error, for example "No such file or directory".
    package static func errorText(_ number: Int32 = errno) -> String { unsafe String(cString: strerror(number)) }

    // MARK: time

    /// The current time of a clock. Costs a few nanoseconds (vDSO).
    package static func time(of clock: clockid_t) -> timespec {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return time
    }

    /// A point in time in the Gregorian calendar, UTC.
    package struct CalendarTime: Sendable, Hashable {
        package var year: Int
        /// 1 to 12.
        package var month: Int
        /// 1 to 31.
        package var day: Int
        /// 0 (Sunday) to 6.
        package var weekday: Int
        package var hour: Int
        package var minute: Int
        package var second: Int
    }

    /// Converts seconds since 1970-01-01 UTC.
    package static func calendarTime(secondsSince1970 seconds: Int) -> CalendarTime {
        var time = time_t(seconds)
        var parts = unsafe tm()
        unsafe gmtime_r(&time, &parts)
        return unsafe CalendarTime(
            year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday), weekday: Int(parts.tm_wday),
            hour: Int(parts.tm_hour), minute: Int(parts.tm_min), second: Int(parts.tm_sec))
    }

    // MARK: process

    /// The environment of this process.
    package static var environment: [String: String] {
        var result: [String: String] = [:]
        var entry = unsafe environ
        while let text = unsafe entry.pointee {
            let pair = unsafe String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
            unsafe entry += 1
        }
        return result
    }

    /// The value of an environment variable; nil if it is not set.
    package static func environmentValue(_ name: String) -> String? { unsafe getenv(name).map { unsafe String(cString: $0) } }

    /// CPU time and memory use of this process.
    package static var resourceUsage: rusage {
        var usage = rusage()
        unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        return usage
    }

    /// The soft (`rlim_cur`) and hard (`rlim_max`) limit of open file descriptors; nil if they cannot be read.
    package static var descriptorLimit: rlimit? {
        var limit = rlimit()
        return unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 ? limit : nil
    }

    /// Changes the limit of open file descriptors.
    /// - Returns: whether the system accepted it.
    package static func setDescriptorLimit(_ limit: rlimit) -> Bool {
        var limit = limit
        return unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
    }

    /// The name of this host; nil if it cannot be read.
    package static var hostName: String? {
        var buffer = [CChar](repeating: 0, count: 256)
        return unsafe gethostname(&buffer, buffer.count - 1) == 0 ? text(buffer) : nil
    }

    // MARK: files

    /// open(2). The descriptor is closed on exec if `flags` contains `O_CLOEXEC`.
    package static func open(_ path: String, _ flags: Int32) -> Int32 { unsafe Glibc.open(path, flags) }

    /// read(2), repeated when a signal interrupts it.
    /// - Returns: the number of bytes at the start of `buffer` that were replaced; 0 at the end of the file, -1 for an error.
    package static func read(_ descriptor: Int32, into buffer: inout [UInt8]) -> Int {
        while true {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 || errno != EINTR { return count }
        }
    }

    /// write(2) of `bytes[start...]`, repeated when a signal interrupts it.
    /// - Returns: the number of bytes written, -1 for an error.
    package static func write(_ bytes: [UInt8], from start: Int = 0, to descriptor: Int32) -> Int {
        while true {
            let count = unsafe bytes[start...].withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count >= 0 || errno != EINTR { return count }
        }
    }

    /// Creates a file, or replaces the contents of an existing one.
    /// - Returns: whether all bytes were written.
    package static func replaceContents(of path: String, by bytes: [UInt8]) -> Bool {
        let descriptor = unsafe Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { return false }
        var position = 0
        while position < bytes.count {
            let count = write(bytes, from: position, to: descriptor)
            guard count > 0 else { break }
            position += count
        }
        return close(descriptor) == 0 && position == bytes.count
    }

    /// Waits until a descriptor can be written to, at most the given time.
    package static func waitUntilWritable(_ descriptor: Int32, milliseconds: Int32) {
        var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        unsafe poll(&ready, 1, milliseconds)
    }

    /// The properties of an open file; nil for an error.
    package static func status(of descriptor: Int32) -> stat? {
        var information = stat()
        return unsafe fstat(descriptor, &information) == 0 ? information : nil
    }

    /// Whether this process may access a file.
    /// - Parameter mode: `R_OK`, `W_OK` or `X_OK`.
    package static func canAccess(_ path: String, _ mode: Int32) -> Bool { unsafe access(path, mode) == 0 }

    /// The target of a symbolic link; nil for an error.
    package static func linkTarget(_ path: String) -> String? {
        var target = [CChar](repeating: 0, count: 4_096)
        return unsafe readlink(path, &target, target.count - 1) > 0 ? text(target) : nil
    }

    /// The number of entries of a directory, without "." and ".."; nil for an error.
    package static func entryCount(of path: String) -> Int? {
        guard let directory = unsafe opendir(path) else { return nil }
        defer { unsafe closedir(directory) }
        var count = 0
        while unsafe readdir(directory) != nil { count += 1 }
        return max(0, count - 2)
    }

    /// Creates a directory that only this user can access.
    /// - Parameter template: path that ends with `XXXXXX`, which is replaced.
    /// - Returns: the path; nil for an error.
    package static func makeTemporaryDirectory(_ template: String) -> String? {
        var path = Array(template.utf8CString)
        return unsafe mkdtemp(&path) != nil ? text(path) : nil
    }

    // MARK: terminal

    /// The attributes of a terminal; nil if the descriptor is none.
    package static func terminalAttributes(of descriptor: Int32) -> termios? {
        var attributes = termios()
        return unsafe tcgetattr(descriptor, &attributes) == 0 ? attributes : nil
    }

    /// Changes the attributes of a terminal after its output was sent, and drops unread input.
    /// - Returns: whether the system accepted them.
    @discardableResult
    package static func setTerminalAttributes(_ attributes: termios, of descriptor: Int32) -> Bool {
        var attributes = attributes
        return unsafe tcsetattr(descriptor, TCSAFLUSH, &attributes) == 0
    }

    /// The size of a terminal in characters; nil if it is unknown.
    package static func terminalSize(of descriptor: Int32) -> (columns: Int, rows: Int)? {
        var window = winsize()
        guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &window) == 0, window.ws_col > 0, window.ws_row > 0 else { return nil }
        return (Int(window.ws_col), Int(window.ws_row))
    }

    /// The text of a C string's buffer.
    private static func text(_ buffer: [CChar]) -> String {
        String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
