import Contract
import JSONCodec
import JobQueue
import NIOCore
import Support

/// A session held by this gateway: its client is connected here, or was connected until recently. Confined to the event loop.
final class Session {
    /// Maximum concurrent replays that a client may request, since each may read a whole event log. Replays started by a takeover are not
    /// limited.
    static let maximumReplays = 8

    let id: String
    let partition: Int
    /// Name of the tenant.
    let owner: String
    /// Milliseconds since 1970.
    let createdMilliseconds: Int
    /// Fencing number, raised at every change of the holding gateway. Redis rejects writes with an older one.
    var epoch: Int
    var settings: SessionSettings { didSet { settingsText = settings.json.text } }
    /// The settings as JSON, serialized once per change.
    private(set) var settingsText: String
    /// Whether the voice was turned on by a REQUEST and not by REGISTER or `update_session`. Without a speech upstream the closing frames of
    /// later requests then have no `voice_stream_seq`.
    var speechIsInherited = false
    var history: ChatHistory
    /// In order of arrival.
    private(set) var running: [RunningRequest] = []
    /// Oldest first, at most `EndedRequest.maximumCount`.
    private(set) var ended: [EndedRequest]
    /// Milliseconds since 1970; the expiry is counted from here.
    var lastRequestMilliseconds: Int
    /// Nil while the client is disconnected.
    weak var socket: ClientSocket?
    /// Interrupts the running requests after the grace period. Set while the client is disconnected and requests are running.
    var graceTimer: Scheduled<Void>?
    /// Changes not yet written to Redis.
    var unsaved = UnsavedChanges()
    /// Whether a write of changes is in flight; further changes wait for its reply.
    var isSaving = false
    /// Start of the last write, in milliseconds since 1970.
    var savedMilliseconds = 0
    /// Whether settings and history were not stored because the owner's session quota is used up.
    var exceedsQuota = false
    /// Number of running replays.
    var replays = 0
    /// Whether SESSION_WARN was sent since the last request.
    var isWarned = false
    /// Whether the session ended, expired or was taken over; it is not written any more.
    private(set) var isOver = false
    /// Counts the running requests; nil once the session is over.
    private var tenants: TenantLedger?
    /// The owner's account on this gateway.
    let account: TrafficAccount

    /// Creates a new session.
    init(
        id: String, partition: Int, owner: String, settings: SessionSettings, history: ChatHistory, tenants: TenantLedger,
        account: TrafficAccount, milliseconds: Int
    ) {
        self.id = id
        self.partition = partition
        self.owner = owner
        self.settings = settings
        settingsText = settings.json.text
        self.account = account
        self.history = history
        self.tenants = tenants
        createdMilliseconds = milliseconds
        lastRequestMilliseconds = milliseconds
        epoch = 1
        ended = []
    }

    /// Restores a claimed session. The caller adds the running requests.
    init(id: String, partition: Int, record: SessionRecord, history: ChatHistory, tenants: TenantLedger, account: TrafficAccount) {
        let settings = SessionSettings(stored: record.settings)
        self.id = id
        self.partition = partition
        owner = record.owner
        self.settings = settings
        settingsText = settings.json.text
        self.account = account
        self.history = history
        self.tenants = tenants
        createdMilliseconds = record.createdMilliseconds
        lastRequestMilliseconds = record.lastRequestMilliseconds
        epoch = record.epoch
        ended = record.ended
    }

    func request(_ id: String) -> RunningRequest? { running.first { $0.id == id } }
    func endedRequest(_ id: String) -> EndedRequest? { ended.last { $0.id == id } }

    func add(_ request: RunningRequest) {
        running.append(request)
        tenants?.add(owner)
        account.hold(request.textBytes)
    }

    /// Removes a request that ended or was rejected.
    /// - Returns: false when it had been removed before.
    func remove(_ request: RunningRequest) -> Bool {
        guard let index = running.firstIndex(where: { $0 === request }) else { return false }
        running.remove(at: index)
        request.end()
        release(request)
        return true
    }

    /// Marks the session and its requests as over and stops counting them.
    func end() {
        guard !isOver else { return }
        isOver = true
        for request in running {
            request.end()
            release(request)
        }
        tenants = nil
    }

    private func release(_ request: RunningRequest) {
        tenants?.remove(owner)
        // `end` has already released the requests of a session that is over.
        if tenants != nil { account.release(request.textBytes) }
    }

    /// Bytes that a request with `text` makes this gateway write: settings, history and the text itself.
    func cost(of text: String) -> Int { settingsText.utf8.count + history.size + text.utf8.count }

    /// Restarts the session timeout, after a REQUEST or when the client resumes the session.
    func touch() {
        lastRequestMilliseconds = max(WallClock.milliseconds, createdMilliseconds + 1)
        isWarned = false
    }

    /// Whether no REQUEST was received since REGISTER.
    var isUnused: Bool { lastRequestMilliseconds == createdMilliseconds && running.isEmpty && ended.isEmpty }

    /// Adds an ended request; drops the oldest above `EndedRequest.maximumCount`.
    func remember(_ request: EndedRequest) {
        ended.removeAll { $0.id == request.id }
        ended.append(request)
        if ended.count > EndedRequest.maximumCount { ended.removeFirst() }
    }

    /// The time of expiry, in milliseconds since 1970.
    func expiry(_ timeout: Duration) -> Int { lastRequestMilliseconds + timeout.wholeMilliseconds }
}

/// What has changed since the last write to Redis.
struct UnsavedChanges {
    struct Fields: OptionSet {
        let rawValue: UInt8
        static let settings = Fields(rawValue: 1)
        static let history = Fields(rawValue: 2)
        static let ended = Fields(rawValue: 4)
        /// Only the expiry and the time of the last request, which every write includes.
        static let time = Fields(rawValue: 8)
        /// All fields, after a failed write.
        static let all = Fields(rawValue: 16)
    }

    var fields: Fields = []
    /// Ids of requests to delete. Bounded by the number of requests that a session can run between two writes.
    var endedRequests: Set<String> = []

    var isEmpty: Bool { fields.isEmpty && endedRequests.isEmpty }
}
