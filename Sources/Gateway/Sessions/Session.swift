import Contract
import JSONCodec
import JobQueue
import NIOCore

/// A session that this gateway holds: its client is connected here, or lately was. Lives on the event loop.
final class Session {
    /// Each may read a whole log; what a takeover starts by itself does not count against it.
    static let maximumReplays = 8

    let id: String
    let partition: Int
    let owner: String
    let createdMilliseconds: Int
    /// Which holder of the session this is; a write with an older one is refused.
    var epoch: Int
    var settings: SessionSettings { didSet { settingsText = settings.json.text } }
    /// The settings as Redis holds them, made once for every change.
    private(set) var settingsText: String
    var history: ChatHistory
    /// In the order in which they came.
    private(set) var running: [RunningRequest] = []
    /// The oldest first, bounded.
    private(set) var ended: [EndedRequest]
    var lastRequestMilliseconds: Int
    /// Nil while the client is away.
    weak var socket: AgentSocket?
    /// Runs while the client is away and requests run on.
    var graceTimer: Scheduled<Void>?
    /// Changes that Redis does not have yet.
    var unsaved = UnsavedChanges()
    /// A write of changes is on its way; others wait for its reply.
    var isSaving = false
    /// When the last write began, in milliseconds since 1970.
    var savedMilliseconds = 0
    /// Redis refused to hold the session's settings and history: its owner's sessions fill their quota.
    var exceedsQuota = false
    /// Requests that are being read again from their logs.
    var replays = 0
    /// The client was told that the session is about to expire.
    var isWarned = false
    /// Ended, expired or another gateway's: nothing is written any more.
    private(set) var isOver = false
    /// Counts what runs; nil once that is no longer this gateway's business.
    private var tenants: TenantLedger?
    /// What the owner's sockets and sessions cost this gateway.
    let account: TrafficAccount

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

    init(id: String, partition: Int, record: SessionRecord, history: ChatHistory, tenants: TenantLedger, account: TrafficAccount) {
        self.id = id
        self.partition = partition
        owner = record.owner
        settings = record.settings
        settingsText = record.settings.json.text
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

    /// - Returns: whether it was still running.
    func remove(_ request: RunningRequest) -> Bool {
        guard let index = running.firstIndex(where: { $0 === request }) else { return false }
        running.remove(at: index)
        release(request)
        return true
    }

    /// What still runs does not count any more.
    func end() {
        guard !isOver else { return }
        isOver = true
        for request in running { release(request) }
        tenants = nil
    }

    private func release(_ request: RunningRequest) {
        tenants?.remove(owner)
        // A request of a session that ended was released then.
        if tenants != nil { account.release(request.textBytes) }
    }

    /// Bytes that a request of `text` makes this gateway write: settings, history and the text itself.
    func cost(of text: String) -> Int { settingsText.utf8.count + history.size + text.utf8.count }

    /// A REQUEST came, or the client came back: the session's time begins anew.
    func touch() {
        lastRequestMilliseconds = max(WallClock.milliseconds, createdMilliseconds + 1)
        isWarned = false
    }

    /// Never used: no REQUEST came since REGISTER.
    var isUnused: Bool { lastRequestMilliseconds == createdMilliseconds && running.isEmpty && ended.isEmpty }

    func remember(_ request: EndedRequest) {
        ended.removeAll { $0.id == request.id }
        ended.append(request)
        if ended.count > EndedRequest.maximumCount { ended.removeFirst() }
    }

    /// Milliseconds since 1970.
    func expiry(_ timeout: Duration) -> Int { lastRequestMilliseconds + timeout.milliseconds }
}

/// The fields of a session's hash that changed since they were last written, and the running requests whose fields are to be deleted.
struct UnsavedChanges {
    struct Fields: OptionSet {
        let rawValue: UInt8
        static let settings = Fields(rawValue: 1)
        static let history = Fields(rawValue: 2)
        static let ended = Fields(rawValue: 4)
        /// Only the expiry and the time of the last request.
        static let time = Fields(rawValue: 8)
        /// Every field: a write failed, or Redis lost the session.
        static let all = Fields(rawValue: 16)
    }

    var fields: Fields = []
    /// Names of hash fields. Bounded by what one session may run between two writes.
    var deletions: Set<String> = []

    var isEmpty: Bool { fields.isEmpty && deletions.isEmpty }
}

/// A request whose job has not ended. Lives on the event loop.
final class RunningRequest {
    enum Phase {
        /// Redis has not answered yet whether it holds the job.
        case submitting
        case running
    }

    let id: String
    let jobID: JobID
    /// What the user said; nil when it was too long to be handed over.
    let text: String?
    var textBytes: Int { text?.utf8.count ?? 0 }
    let speaks: Bool
    /// Redis refused to hold the request: its owner's sessions fill their quota.
    var exceedsQuota = false
    /// Of the job, where this gateway submitted it.
    var traceparent: String?
    var machine: RelayMachine
    var following: Following?
    var phase = Phase.submitting
    /// The client is away, or came back and did not ask for this one: nothing is sent.
    var isMuted = false
    /// Raised by every RESUME: what an older following still delivers is dropped.
    var generation = 0
    /// When its first interrupt was asked for; nil: none was.
    var interruptedAt: NIODeadline?
    /// Interrupts that wait for Redis to hold the job.
    var waiting: [(reason: String, answer: (InterruptResult?) -> Void)] = []
    /// Those who share the answer to the interrupt that is on its way to Redis; empty: none is.
    var unanswered: [(InterruptResult?) -> Void] = []
    /// An interrupt whose acknowledgement is overdue is still being tried.
    var storesIntent = false

    init(id: String, jobID: JobID, text: String?, speaks: Bool, machine: RelayMachine) {
        self.id = id
        self.jobID = jobID
        self.text = text
        self.speaks = speaks
        self.machine = machine
    }

    /// The field of the session's hash.
    var stored: JSON {
        let kept = text.flatMap { $0.utf8.count <= SessionRecord.textMaximum ? $0 : nil }
        return [.string(jobID.rawValue), kept.map(JSON.string) ?? .null, .integer(speaks ? 1 : 0)]
    }
}
