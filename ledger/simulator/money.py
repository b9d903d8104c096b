"""Bodies of callbacks that move money, shaped as StraitsX and GoKart send them.

Every function takes the deal, the status to report and the minutes since the deal began, and
returns one body. Shapes: straitsx-callback-samples, gokart callback-schema-v1. A `Decimal` is
written as a JSON number and a text as a string, as the provider does for that kind.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Final

from ledger.simulator.deal import (
    Deal,
    amount_text,
    encode,
    instant,
    singapore,
    virtual_account_of,
    wrapped,
)

NETWORK_FEES: Final = Decimal("0.02")
"""What a simulated blockchain takes for a withdrawal, in its token."""


def bought(amount: Decimal) -> Decimal:
    """Return what a simulated swap gives for an amount: USDC for XSGD."""
    return (amount * Decimal("0.7516")).quantize(Decimal("0.01"))


def payment(d: Deal, status: str, minutes: int) -> bytes:
    """Write an incoming bank transfer to a virtual account: flat, snake_case, money as text."""
    return encode(
        {
            "id": d.id,
            "type": "Direct bank transfer",
            "idempotency_id": d.idempotency_id,
            "amount": amount_text(d.amount),
            "fees": amount_text(d.fees),
            "status": status,
            "bank_account_no": d.account_no,
            "merchant_ref": d.person,
            "blocked_reasons": [{"code": "NM-001"}] if status == "failed" else [],
            "currency": d.currency,
            "end_to_end_ref": f"S{d.account_no}",
            "transaction_remarks": d.remarks,
            "payment_method": virtual_account_of(d),
            "sender_information": _sender(d),
            "sender_bank": "DBS Bank Ltd",
            "sender_bank_account_no": d.account_no[::-1],
            "sender_bank_account_holder_name": d.person,
            "sender_bank_swift_bic": "DBSSSGSGXXX",
            "created_at": instant(d.created),
            "updated_at": instant(d.created, minutes),
            "customer_profile_id": d.customer_id or None,
        }
    )


def payout(d: Deal, status: str, minutes: int) -> bytes:
    """Write an outgoing bank transfer: flat, snake_case, names no customer."""
    return encode(
        {
            "id": d.id,
            "type": "Withdrawal on behalf",
            "idempotency_id": d.idempotency_id,
            "amount": amount_text(d.amount),
            "fees": amount_text(d.fees),
            "status": status,
            "account_no": d.account_no,
            "bank_abbrev": "OCBC",
            "failure_reason": "Beneficiary account is closed" if status == "failed" else "",
            "arrival": (d.created + timedelta(hours=8)).strftime("%d %b %Y - %I:%M %p"),
            "currency": d.currency,
            "payout_invoice_id": d.idempotency_id,
            "wallet_name": "Digital Goods",
            "bank_account_holder_name": d.person,
            "swift_bic": "OCBCSGSGXXX",
            "beneficiary_address": f"{d.street}, SINGAPORE, SG, 018982",
            "routing_code": "",
            "intermediary_swift_bic": "",
            "description": f"Payout to {d.person} for services rendered under the framework "
            "agreement; please quote the invoice in every question about this transfer",
            "external_reference": f"payout-{d.idempotency_id}",
            "beneficiary_bank_name": "Oversea-Chinese Banking Corporation Limited",
            "beneficiary_bank_address": "65 CHULIA STREET, OCBC CENTRE, SINGAPORE 049513",
            "charge_option": "OUR",
            "created_at": instant(d.created),
            "updated_at": instant(d.created, minutes),
            "express": "FAST",
        }
    )


def fx_payout(d: Deal, status: str, minutes: int) -> bytes:
    """Write a payout in rupiah: `data.attributes`, camelCase, whole rupiah, no idempotency id."""
    rupiah = (d.amount * Decimal("15832.5")).quantize(Decimal(1))
    return wrapped(
        d.id.removeprefix("contract_"),
        "fxPayout",
        {
            "status": status,
            "quoteId": f"fx_quote_{d.idempotency_id}",
            "recipientId": d.customer_id.removeprefix("customer_profile_"),
            "rate": Decimal("15832.5"),
            "from": {"currency": "XUSD", "amount": f"{d.amount:.2f}"},
            "to": {"currency": "IDR", "amount": f"{rupiah}.00"},
            "fee": {"currency": "XUSD", "amount": f"{d.fees:.2f}"},
            "initiator": {"mode": "onBehalfOf", "customerProfileId": d.customer_id},
            "purpose": "SERVICE_CHARGES",
            "remarks": f"{d.remarks} {d.account_no} on behalf of {d.person}, {d.street}",
            "createdAt": singapore(d.created),
            "updatedAt": singapore(d.created, minutes),
        },
    )


def user_deposit(d: Deal, status: str, minutes: int) -> bytes:
    """Write the merchant's own bank deposit: `data.attributes`, camelCase, no customer."""
    return wrapped(
        d.id,
        "bankTransfer",
        {
            "idempotencyId": d.idempotency_id,
            "currency": d.currency,
            "amount": amount_text(d.amount),
            "fees": amount_text(d.fees),
            "status": status,
            "createdAt": singapore(d.created),
            "updatedAt": singapore(d.created, minutes),
            "senderInformation": {
                "accountHolderName": d.person,
                "accountNumber": d.account_no,
                "bankName": "DBS Bank Ltd",
                "bankAddress": f"{d.street}, SINGAPORE 018982",
                "swiftBic": "DBSSSGSGXXX",
                "transactionRemarks": d.remarks,
            },
            "blockedReasons": [],
        },
    )


def user_withdrawal(d: Deal, status: str, minutes: int) -> bytes:
    """Write the merchant's own withdrawal: `netAmount` is amount plus fees, despite its name."""
    return wrapped(
        d.id,
        "withdrawal",
        {
            "amount": amount_text(d.amount),
            "bankAccount": {
                "account_holder_name": d.person,
                "account_no": d.account_no,
                "bank": "DBS Bank Ltd",
                "intermediary_swift_bic": "",
                "routing_code": "",
                "swift_bic": "DBSSSGSGXXX",
            },
            "createdAt": singapore(d.created),
            "currency": d.currency,
            "fees": amount_text(d.fees),
            "transactionRemarks": d.remarks,
            "idempotencyId": d.idempotency_id,
            "netAmount": amount_text(d.amount + d.fees),
            "status": status,
            "updatedAt": singapore(d.created, minutes),
        },
    )


def swap(d: Deal, status: str, minutes: int) -> bytes:
    """Write a swap of XSGD for USDC: every amount is a JSON number, the total includes fees."""
    return wrapped(
        d.id,
        "swapTransaction",
        {
            "createdAt": singapore(d.created),
            "customerProfileId": "",
            "fees": [{"type": "TransactionFee", "amount": d.fees, "currency": "XSGD"}],
            "fixedSide": "source",
            "idempotencyId": d.idempotency_id,
            "quoteId": d.customer_id.removeprefix("customer_profile_"),
            "rate": Decimal("0.7516"),
            "sourceCurrency": "XSGD",
            "sourceCurrencyAmount": d.amount,
            "status": status,
            "swapPair": "XSGDUSDC",
            "targetCurrency": "USDC",
            "targetCurrencyAmount": bought(d.amount),
            "totalSourceCurrencyAmount": d.amount + d.fees,
            "updatedAt": singapore(d.created, minutes),
        },
    )


def chain_deposit(d: Deal, status: str, minutes: int) -> bytes:
    """Write tokens that came in over a blockchain; the currency is called `token`."""
    return _chain(d, "stablecoin_deposit_contract", Decimal(0), status, minutes)


def chain_withdrawal(d: Deal, status: str, minutes: int) -> bytes:
    """Write tokens that left over a blockchain; the total includes the network's fees."""
    return _chain(d, "stablecoin_withdraw_contract", NETWORK_FEES, status, minutes)


def hash_of(d: Deal) -> str:
    """Return the hash of a deal's blockchain transaction."""
    seed = d.id.removeprefix("contract_")
    return f"0x{seed}{seed}"


def _chain(d: Deal, kind: str, network_fees: Decimal, status: str, minutes: int) -> bytes:
    seed = d.id.removeprefix("contract_")
    attributes = {
        "amount": amount_text(d.amount),
        "blockchain": f"{d.currency.upper()}_ERC20",
        "created_at": instant(d.created),
        "updated_at": instant(d.created, minutes),
        "idempotency_id": d.idempotency_id,
        "network": "Ethereum",
        "network_fees": amount_text(network_fees),
        "status": status,
        "token": d.currency,
        "total_amount": amount_text(d.amount + network_fees),
        "transaction_hash": "pending" if status == "pending" else hash_of(d),
        "transaction_source": f"0x{seed}{seed[:8]}",
    }
    return wrapped(d.id, kind, attributes)


def conversion(d: Deal, status: str, minutes: int) -> bytes:
    """Write a GoKart conversion: revenue and points are JSON numbers, no currency is named."""
    seed = d.id.removeprefix("contract_")
    conversion = {
        "status": status,
        "rejectionReason": "Returned by the shopper" if status == "Rejected" else None,
        "userCompletedAt": instant(d.created),
        "isRewardSent": status == "Success",
        "viewId": f"view-{seed[:16]}",
        "clickId": f"click-{seed}",
        "conversionId": f"conv-{seed}",
        "offerId": 4_711,
        "offerName": "Open a savings account and fund it",
        "offerAdvertiserId": 215,
        "offerEventId": 9,
        "eventId": f"event-{seed[:12]}",
        "eventName": "Funded account",
        "rewardPoints": int(d.amount) % 500 + 1,
        "revenue": (d.amount / 100).quantize(Decimal("0.01")),
        "pubMemberId": f"member-{d.account_no}",
        "pubClickId": f"pub-{d.idempotency_id}",
        **{f"pubSub{n}": "" for n in range(1, 16)},
        "trackSysConversionId": d.idempotency_id,
        "trackSysConversionAmount": f"{d.amount:.2f}",
        "trackSysPayout": "",
        "sequenceNumber": 1,
        "partnerId": 88,
        "createdAt": instant(d.created),
        "clickTime": instant(d.created, -30),
    }
    record = f"{seed[:24]}-{minutes:05d}"
    return encode({"id": record, "sentAt": instant(d.created, minutes), "conversion": conversion})


def _sender(d: Deal) -> dict[str, str]:
    return {
        "account_holder_name": d.person,
        "account_number": d.account_no[::-1],
        "bank_short_code": "DBS",
        "bank_name": "DBS Bank Ltd",
        "end_to_end_ref": f"S{d.account_no}",
        "swift_bic": "DBSSSGSGXXX",
        "transaction_remarks": d.remarks,
    }
