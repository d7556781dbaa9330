import RedisClient

/// The Lua scripts of the operations that must be atomic. The header of each file documents its keys, arguments and replies.
package enum Scripts {
    package static let submit = library.script(
        "submit", PackageResources.submit_lua, rarely: ["store_interrupt", "end_waiting", "tokens_today"])
    package static let interrupt = library.script("interrupt", PackageResources.interrupt_lua, rarely: ["end_waiting"])
    package static let take = library.script(
        "take", PackageResources.take_lua, rarely: ["own_turns", "is_unexecuted", "disown", "separate", "sort_entries", "deliver_turns"])
    package static let claim = library.script(
        "claim", PackageResources.claim_lua,
        rarely: [
            "bury", "conclude_failed", "conclude_interrupted", "drop", "has_higher", "is_end", "next_attempt", "reason_of",
            "remove_higher", "tokens_today",
        ])
    package static let renew = library.script(
        "renew", PackageResources.renew_lua, rarely: ["discard_history", "listed_job", "restore_record", "return_entry"])
    static let renewQuiet = library.script("renew_quiet", PackageResources.renew_quiet_lua)
    package static let finish = library.script("finish", PackageResources.finish_lua, rarely: ["bury", "listed_job", "restore_record"])
    package static let handBack = library.script("hand_back", PackageResources.hand_back_lua)
    package static let putBack = library.script("put_back", PackageResources.put_back_lua)
    package static let reject = library.script("reject", PackageResources.reject_lua)
    package static let forgetConsumer = library.script("forget_consumer", PackageResources.forget_consumer_lua)
    static let listWorker = library.script("list_worker", PackageResources.list_worker_lua)
    static let limit = library.script("limit", PackageResources.limit_lua)
    static let tenants = library.script("tenants", PackageResources.tenants_lua)
    static let walk = library.script("walk", PackageResources.walk_lua)
    static let endInterrupted = library.script("end_interrupted", PackageResources.end_interrupted_lua)
    static let restoreEntries = library.script("restore_entries", PackageResources.restore_entries_lua)
    package static let depth = library.script("depth", PackageResources.depth_lua)
    package static let logPage = library.script("log_page", PackageResources.log_page_lua)
    static let responseSave = library.script("response_save", PackageResources.response_save_lua)
    static let responseDelete = library.script("response_delete", PackageResources.response_delete_lua)
    static let webhookTake = library.script("webhook_take", PackageResources.webhook_take_lua)
    static let webhookSettle = library.script("webhook_settle", PackageResources.webhook_settle_lua)
    static let secretSave = library.script("secret_save", PackageResources.secret_save_lua)
    static let responseTouch = library.script("response_touch", PackageResources.response_touch_lua)
    static let checkEntry = library.script("check_entry", PackageResources.check_entry_lua)
    static let startAgain = library.script("start_again", PackageResources.start_again_lua)
    static let anyExists = library.script("any_exists", PackageResources.any_exists_lua)
    static let look = library.script("look", PackageResources.look_lua)
    static let sessionClaim = library.script("session_claim", PackageResources.session_claim_lua)
    static let sessionSave = library.script("session_save", PackageResources.session_save_lua)
    static let sessionEnd = library.script("session_end", PackageResources.session_end_lua)

    /// The scripts that a worker calls. They are loaded at start, so that no hot path receives NOSCRIPT.
    package static let ofWorker = [
        take, claim, renew, renewQuiet, finish, handBack, putBack, reject, forgetConsumer, restoreEntries, depth, walk, endInterrupted,
        limit, webhookTake, webhookSettle, anyExists, listWorker, checkEntry,
    ]

    /// The scripts that a gateway calls, loaded at each connect.
    static let ofGateway = [
        submit, interrupt, logPage, checkEntry, startAgain, look, sessionClaim, sessionSave, sessionEnd, responseSave, responseDelete,
        responseTouch, secretSave,
    ]

    private static let library = ScriptLibrary(
        PackageResources.shared_lua, PackageResources.usage_lua, PackageResources.ending_lua, PackageResources.turns_lua,
        PackageResources.session_quota_lua)
}
