enum JobQueueRoom { static let x = PackageResources.claim_lua }
