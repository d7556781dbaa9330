import RedisClient

/// The Lua scripts of the operations that must be atomic. The header of each file documents its keys, arguments and replies.
package enum Scripts {
    package static let submit = script("submit", PackageResources.submit_lua)
    package static let interrupt = script("interrupt", PackageResources.interrupt_lua)
    package static let take = turnScript("take", PackageResources.take_lua)
    package static let claim = script("claim", PackageResources.claim_lua)
    package static let renew = script("renew", PackageResources.renew_lua)
    package static let finish = script("finish", PackageResources.finish_lua)
    package static let handBack = script("hand_back", PackageResources.hand_back_lua)
    package static let putBack = script("put_back", PackageResources.put_back_lua)
    package static let reject = script("reject", PackageResources.reject_lua)
    package static let forgetConsumer = script("forget_consumer", PackageResources.forget_consumer_lua)
    static let limit = script("limit", PackageResources.limit_lua)
    static let tenants = script("tenants", PackageResources.tenants_lua)
    static let walk = turnScript("walk", PackageResources.walk_lua)
    static let endInterrupted = turnScript("end_interrupted", PackageResources.end_interrupted_lua)
    static let restoreEntries = script("restore_entries", PackageResources.restore_entries_lua)
    package static let depth = script("depth", PackageResources.depth_lua)
    package static let logPage = script("log_page", PackageResources.log_page_lua)
    static let responseSave = script("response_save", PackageResources.response_save_lua)
    static let responseDelete = script("response_delete", PackageResources.response_delete_lua)
    static let webhookTake = script("webhook_take", PackageResources.webhook_take_lua)
    static let webhookSettle = script("webhook_settle", PackageResources.webhook_settle_lua)
    static let secretSave = RedisScript(name: "secret_save", source: String(decoding: PackageResources.secret_save_lua, as: UTF8.self))
    static let responseTouch = script("response_touch", PackageResources.response_touch_lua)
    static let checkEntry = script("check_entry", PackageResources.check_entry_lua)
    static let startAgain = script("start_again", PackageResources.start_again_lua)
    static let anyExists = RedisScript(name: "any_exists", source: String(decoding: PackageResources.any_exists_lua, as: UTF8.self))
    static let look = RedisScript(name: "look", source: String(decoding: PackageResources.look_lua, as: UTF8.self))
    static let sessionClaim = RedisScript(
        name: "session_claim", source: String(decoding: PackageResources.session_claim_lua, as: UTF8.self))
    static let sessionSave = sessionScript("session_save", PackageResources.session_save_lua)
    static let sessionEnd = sessionScript("session_end", PackageResources.session_end_lua)

    /// The scripts that a worker calls. They are loaded at start, so that no hot path receives NOSCRIPT.
    package static let ofWorker = [
        take, claim, renew, finish, handBack, putBack, reject, forgetConsumer, restoreEntries, depth, walk, endInterrupted, limit,
        webhookTake, webhookSettle, anyExists,
    ]

    /// The scripts that a gateway calls, loaded at each connect.
    static let ofGateway = [
        submit, interrupt, logPage, checkEntry, startAgain, look, sessionClaim, sessionSave, sessionEnd, responseSave, responseDelete,
        responseTouch, secretSave,
    ]

    /// Prepends the functions of `shared.lua` and `ending.lua` to a script.
    private static func script(_ name: String, _ source: [UInt8]) -> RedisScript {
        RedisScript(name: name, source: String(decoding: PackageResources.shared_lua + PackageResources.ending_lua + source, as: UTF8.self))
    }

    /// Prepends the functions of `shared.lua`, `ending.lua` and `turns.lua` to a script.
    private static func turnScript(_ name: String, _ source: [UInt8]) -> RedisScript {
        script(name, PackageResources.turns_lua + source)
    }

    /// Prepends the functions of `session_quota.lua` to a script.
    private static func sessionScript(_ name: String, _ source: [UInt8]) -> RedisScript {
        RedisScript(name: name, source: String(decoding: PackageResources.session_quota_lua + source, as: UTF8.self))
    }
}
