"""Bodies of callbacks about people, accounts and limits, shaped as StraitsX sends them.

Every function takes the deal whose customer it is about, the status to report and the minutes
since the deal began, and returns one body. Shapes: straitsx-callback-samples.
"""

from __future__ import annotations

from typing import Any

from ledger.simulator.deal import Deal, encode, instant, second, virtual_account_of, wrapped


def customer(d: Deal, status: str, minutes: int) -> bytes:
    """Write a personal profile with its verification status."""
    given, _, family = d.person.partition(" ")
    attributes: dict[str, Any] = {
        "customerName": d.person,
        "customerFirstName": given,
        "customerLastName": family,
        "registrationType": "personal",
        "registrationId": f"S{d.account_no[:7]}A",
        "registrationIdType": "identity_card",
        "registrationIdCountry": "SG",
        "verificationStatus": status,
        "dateOfBirth": "1990-01-15",
        "gender": "FEMALE",
        "nationality": "SG",
        "email": f"{given.lower()}@example.com",
        "phoneNo": f"65{d.account_no[:8]}",
        "address": {"street": d.street, "city": "Singapore", "country": "SG"},
        "countryOfResidence": "SG",
        "occupation": "SENIOR_ASSOCIATE_OR_SENIOR_EXECUTIVE",
        "expectedAnnualTransactionAmount": "0_TO_1000",
        "expectedTransactionFrequency": "AT_LEAST_ONCE_EVERY_2_WEEKS",
        "annualIncome": "0_TO_30000",
        "identityDocuments": {
            "selfie": {"rejectionReason": "", "status": status},
            "passport": {"rejectionReason": "", "status": status},
            "proofOfAddress": {"rejectionReason": "", "status": status},
            "livenessResult": True,
        },
        "ipAddresses": ["10.0.1.1"],
        "createdAt": second(d.created),
        "updatedAt": second(d.created, minutes),
    }  # fmt: skip
    if status == "rejected":
        attributes["isRetryable"] = True
        attributes["verificationRejectionSummary"] = "The proof of address is out of date"
    return wrapped(d.customer_id, "customer_profile", attributes)


def bank_account(d: Deal, status: str, minutes: int) -> bytes:
    """Write a customer's bank account: flat, an integer id, no type and no customer."""
    return encode(
        {
            "id": int(d.account_no),
            "account_no": d.account_no,
            "account_holder_name": d.person,
            "bank_abbrev": "BCA",
            "disabled": False,
            "verification_status": status,
            "bank_account_proof": "bank-statement.png",
            "updated_at": instant(d.created, minutes),
            "payment_reason": d.remarks,
        }
    )


def virtual_account(d: Deal, status: str, minutes: int) -> bytes:
    """Write a virtual account's state; only its creation time is in it."""
    seed = d.customer_id.removeprefix("customer_profile_")
    method = virtual_account_of(d)
    attributes = {
        "referenceId": d.account_no,
        "currency": "USD",
        "status": status,
        "instructions": {
            "recipientName": method["recipient_name"],
            "bankName": method["bank_name"],
            "bankAddress": method["bank_address"],
            "bankCountry": method["bank_country"],
            "swiftBic": method["swift_bic"],
            "accountNo": d.account_no,
        },
        "createdAt": instant(d.created, minutes),
    }
    return wrapped(f"virtual_account_{seed}", "virtual_bank_account", attributes)


def limits(d: Deal, period: str, minutes: int) -> bytes:
    """Write a customer's limits for a `period`, Annual or Daily; they carry no time."""
    total, used = 200_000, minutes * 100
    attributes = {
        "customerProfileId": d.customer_id,
        f"total{period}PaymentLimit": total,
        f"available{period}PaymentLimit": total - used,
        f"total{period}PayoutLimit": total,
        f"available{period}PayoutLimit": total - used,
        "transactionSizeLimit": None,
    }
    return wrapped(f"limit_{d.account_no}", "transactionLimits", attributes)


def limits_request(d: Deal, status: str, minutes: int) -> bytes:
    """Write the state of a request for higher limits."""
    attributes = {
        "status": status,
        "customerProfileId": d.customer_id,
        "createdAt": second(d.created),
        "updatedAt": second(d.created, minutes),
    }
    return wrapped(f"limit_request_{d.account_no}", "transactionLimitsUpdateRequest", attributes)


def rfi(d: Deal, status: str, minutes: int) -> bytes:
    """Write a request for information: bare `attributes`, the customer beside them."""
    done = status == "completed"
    params = {
        "id": "1823",
        "question": "What is your primary business activity?",
        "optional": False,
        "replyType": "TEXT",
        "userReply": "Consulting" if status != "sent" else "",
        "questionStatus": "accepted" if done else "pending",
        "rejectionReason": "",
        "requiresAction": status == "sent",
    }
    request = {
        "createdAt": second(d.created),
        "rfQuestions": [params],
        "status": status,
        "rfProgressSummary": {"acceptedQuestions": int(done), "completionPercentage": 100 * done},
        "daysExpired": 0,
        "daysUntilExpiry": 14,
        "expiryDate": second(d.created, 14 * 24 * 60),
        "pendingQuestions": int(not done),
        "rejectedQuestions": 0,
        "totalQuestions": 1,
    }
    return encode(
        {
            "attributes": {"activeRfRequest": request},
            "id": f"rfi_request_{d.account_no}",
            "customerProfileId": d.customer_id,
            "type": "rfiRequest",
        }
    )
