import Support

/// The results of function calls in one REQUEST, and where their calls were made.
struct AnsweredCalls {
    private enum Place {
        /// A running request: its turn is not in the history yet.
        case running(RunningRequest)
        /// The last turn of the history.
        case lastTurn
        /// An earlier turn.
        case earlier
    }

    private struct Entry {
        var call: ChatHistory.Call
        var result: String
        var place: Place
    }

    /// What the next request adds to its messages after the history.
    struct Continuation {
        /// End with the results of all calls.
        var turns: [ChatHistory.Turn] = []
        /// Calls that the request repeats with their results, because other turns followed them.
        var restated: [ChatHistory.Call] = []
        /// Whether the history was changed.
        var changesHistory = false
    }

    private var entries: [Entry] = []

    /// Finds the calls that the results belong to.
    /// - Throws: MALFORMED_PAYLOAD for a call that is in neither the history nor a running request.
    init(_ results: [FunctionResult], history: ChatHistory, running: [RunningRequest], requestID: String) throws(ProtocolError) {
        for result in results {
            let id = result.callID
            if let request = running.last(where: { $0.machine.calls.contains { $0.id == id } }),
                let call = request.machine.calls.last(where: { $0.id == id })
            {
                entries.append(Entry(call: call, result: result.text, place: .running(request)))
            } else if let (turn, call) = history.call(id) {
                let isLast = turn == history.turns.count - 1
                entries.append(Entry(call: call, result: result.text, place: isLast ? .lastTurn : .earlier))
            } else {
                throw .malformed("no function call of this session has the call_id \"\(id.cut(toBytes: 64))\"", requestID: requestID)
            }
        }
    }

    /// Records the results in the turns of their calls.
    func record(in history: inout ChatHistory) -> Continuation {
        var continuation = Continuation()
        var requests: [RunningRequest] = []
        for entry in entries {
            var call = entry.call
            call.result = entry.result
            switch entry.place {
            case .running(let request):
                request.results[call.id] = entry.result
                // A request taken over from another gateway has no turn if its text was too long to store.
                if request.turn == nil {
                    continuation.restated.append(call)
                } else if !requests.contains(where: { $0 === request }) {
                    requests.append(request)
                }
            case .lastTurn:
                history.setResult(entry.result, of: call.id)
                continuation.changesHistory = true
            case .earlier: continuation.restated.append(call)
            }
        }
        // The history may have dropped a turn that has grown over its limit.
        for entry in entries {
            if case .lastTurn = entry.place, history.call(entry.call.id) == nil {
                var call = entry.call
                call.result = entry.result
                continuation.restated.append(call)
            }
        }
        continuation.turns = requests.compactMap(\.turn)
        if !continuation.restated.isEmpty {
            continuation.turns.append(ChatHistory.Turn(user: "", text: "", restated: continuation.restated))
        }
        return continuation
    }
}
